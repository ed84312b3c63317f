//! `clean`: gives disk space back.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::common::{print_json, set_json};
use crate::error::Result;
use crate::platform::scratch;
use crate::store::{Store, remove_tree, size_of_tree};
use crate::ui;

/// Give disk space back: work folders and what killed runs left (default), or everything in the store
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  cargo xtask clean            work folders; downloads and results stay
  cargo xtask clean --dry-run  what that would give back, and remove nothing
  cargo xtask clean --all      the whole store")]
pub struct Args {
    /// Folder of the store (default: TORCHMILL_STORE, else the user's cache folder)
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
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
///
/// # Errors
/// As [`Store::open_unused`] and [`Store::alone`]. The world: something in it cannot be removed.
pub fn run(args: Args) -> Result<()> {
    set_json(args.json);
    let store = Store::open_unused(args.store.as_deref())?;
    // Held until all is removed: whoever comes in between waits.
    let _alone = if args.dry_run { None } else { Some(store.alone()?) };
    let folders: &[&str] = if args.all {
        &["work", "inner", "stages", "blobs", "parts", "cache", "quarantine"]
    } else {
        &["work", "inner", "parts"]
    };
    let mut paths: Vec<PathBuf> = folders.iter().map(|f| store.root().join(f)).filter(|p| p.exists()).collect();
    // What killed runs left stands among results that stay, and among temporary files.
    let left = store.leftovers().into_iter().chain(scratch::left());
    let stays: Vec<PathBuf> = left.filter(|l| !paths.iter().any(|p| l.starts_with(p))).collect();
    paths.extend(stays);
    let mut removed = Vec::new();
    for path in paths {
        let shown = path.display().to_string();
        let _said = ui::Waiting::new(move || format!("looking at {shown}"));
        let bytes = if path.is_dir() { size_of_tree(&path) } else { path.metadata().map_or(0, |m| m.len()) };
        removed.push(Removed { path: path.clone(), bytes });
        if args.dry_run {
            continue;
        }
        let shown = path.display().to_string();
        let _said = ui::Waiting::new(move || format!("removing {shown}, {}", ui::bytes(bytes)));
        if path.is_dir() {
            remove_tree(&path)?;
        } else {
            fs_err::remove_file(&path)?;
        }
    }
    show(&args, &removed);
    Ok(())
}

/// A folder or file that goes, and what it takes.
#[derive(Debug, serde::Serialize)]
struct Removed {
    path: PathBuf,
    bytes: u64,
}

fn show(args: &Args, removed: &[Removed]) {
    let sum: u64 = removed.iter().map(|r| r.bytes).sum();
    if args.json {
        let freed = if args.dry_run { 0 } else { sum };
        print_json(&serde_json::json!({
            "schema_version": 1, "freed": freed, "would_free": sum, "dry_run": args.dry_run, "removed": removed,
        }));
        return;
    }
    for r in removed {
        println!("{:>10}  {}", ui::bytes(r.bytes), ui::path(&r.path));
    }
    println!("{} {}", ui::bytes(sum), if args.dry_run { "would be given back" } else { "given back" });
}
