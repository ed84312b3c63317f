//! `clean`: gives disk space back.

use clap::Args as ClapArgs;

use super::common::{print_json, set_json};
use crate::error::Result;
use crate::store::{Store, remove_tree, size_of_tree};
use crate::ui;

/// Give disk space back: remove work folders (default), or everything in the store
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  cargo xtask clean            work folders; downloads and results stay
  cargo xtask clean --dry-run  what that would give back, and remove nothing
  cargo xtask clean --all      the whole store")]
pub struct Args {
    /// Folder of the store (default: TORCHMILL_STORE, else the user's cache folder)
    #[arg(long, value_name = "DIR")]
    store: Option<std::path::PathBuf>,
    /// Everything: downloads, results, caches
    #[arg(long)]
    all: bool,
    /// Say what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: Args) -> Result<()> {
    set_json(args.json);
    let store = Store::open(args.store.as_deref())?;
    let folders: &[&str] = if args.all {
        &["work", "inner", "stages", "blobs", "parts", "cache", "quarantine"]
    } else {
        &["work", "inner", "parts"]
    };
    let mut removed = Vec::new();
    for folder in folders {
        let dir = store.root().join(folder);
        if !dir.exists() {
            continue;
        }
        let _said = ui::Waiting::new(move || format!("looking at {folder}/"));
        let bytes = size_of_tree(&dir);
        removed.push(Removed { folder: dir.clone(), bytes });
        if args.dry_run {
            continue;
        }
        let _said = ui::Waiting::new(move || format!("removing {folder}/, {}", ui::bytes(bytes)));
        remove_tree(&dir)?;
    }
    show(&args, &removed);
    Ok(())
}

/// A folder of the store, and what was in it.
#[derive(Debug, serde::Serialize)]
struct Removed {
    folder: std::path::PathBuf,
    bytes: u64,
}

fn show(args: &Args, removed: &[Removed]) {
    let sum: u64 = removed.iter().map(|r| r.bytes).sum();
    if args.json {
        let freed = if args.dry_run { 0 } else { sum };
        print_json(&serde_json::json!({
            "schema_version": 1, "freed": freed, "would_free": sum, "dry_run": args.dry_run, "folders": removed,
        }));
        return;
    }
    for r in removed {
        println!("{:>10}  {}", ui::bytes(r.bytes), r.folder.display());
    }
    println!("{} {}", ui::bytes(sum), if args.dry_run { "would be given back" } else { "given back" });
}
