//! `clean`: gives disk space back.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::common::print_json;
use crate::error::Result;
use crate::store::{Store, remove_tree, size_of_tree};
use crate::ui;

/// Give disk space back: work folders and what killed runs left (default), or everything in the store
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  cargo xtask clean --dry-run       what would be removed, and how large it is
  cargo xtask clean                 work folders of all builds; downloads and results stay
  cargo xtask clean --all           the whole store")]
pub struct Args {
    /// Folder of the store (default: TORCHMILL_STORE, else the user's cache folder)
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    /// Everything: downloads, results, caches
    #[arg(long)]
    all: bool,
    /// Show what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,
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
    let mut paths: Vec<PathBuf> = folders.iter().map(|f| store.root().join(f)).filter(|p| p.exists()).collect();
    // What killed runs left stands among results that stay.
    let left = store.leftovers();
    let stays: Vec<PathBuf> = left.into_iter().filter(|l| !paths.iter().any(|p| l.starts_with(p))).collect();
    paths.extend(stays);
    let size = |p: &PathBuf| if p.is_dir() { size_of_tree(p) } else { p.metadata().map_or(0, |m| m.len()) };
    let found: Vec<(PathBuf, u64)> = paths.into_iter().map(|p| (p.clone(), size(&p))).collect();
    let freed: u64 = found.iter().map(|(_, size)| size).sum();
    if !args.dry_run {
        for (path, _) in &found {
            if path.is_dir() {
                remove_tree(path)?;
            } else {
                fs_err::remove_file(path)?;
            }
        }
    }
    if args.json {
        let removed: Vec<_> = found.iter().map(|(p, size)| serde_json::json!({ "path": p, "bytes": size })).collect();
        print_json(
            &serde_json::json!({ "schema_version": 1, "freed": freed, "dry_run": args.dry_run, "removed": removed }),
        );
        return Ok(());
    }
    if args.dry_run {
        for (path, size) in found.iter().filter(|(_, size)| *size > 0) {
            println!("{:>10}  {}", ui::bytes(*size), path.display());
        }
        println!("{} would be given back", ui::bytes(freed));
    } else {
        println!("{} given back", ui::bytes(freed));
    }
    Ok(())
}
