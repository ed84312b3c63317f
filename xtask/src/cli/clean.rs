//! `clean`: gives disk space back.

use clap::Args as ClapArgs;

use super::common::print_json;
use crate::error::Result;
use crate::store::{Store, remove_tree, size_of_tree};
use crate::ui;

/// Give disk space back: remove work folders (default), or everything in the store
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  cargo xtask clean                 work folders of all builds; downloads and results stay
  cargo xtask clean --all           the whole store")]
pub struct Args {
    /// Folder of the store (default: TORCHMILL_STORE, else the user's cache folder)
    #[arg(long, value_name = "DIR")]
    store: Option<std::path::PathBuf>,
    /// Everything: downloads, results, caches
    #[arg(long)]
    all: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: Args) -> Result<()> {
    let store = Store::open(args.store.as_deref())?;
    let folders: &[&str] = if args.all {
        &["work", "inner", "stages", "blobs", "parts", "cache", "quarantine"]
    } else {
        &["work", "inner", "parts"]
    };
    let mut freed = 0;
    for folder in folders {
        let dir = store.root().join(folder);
        if !dir.exists() {
            continue;
        }
        freed += size_of_tree(&dir);
        remove_tree(&dir)?;
    }
    if args.json {
        print_json(&serde_json::json!({ "schema_version": 1, "freed": freed }));
    } else {
        println!("{} given back", ui::bytes(freed));
    }
    Ok(())
}
