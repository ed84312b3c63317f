//! `fetch`: everything that a recipe's lock names comes into the store.

use clap::Args as ClapArgs;

use super::common::{RecipeArgs, ToolArgs, print_json};
use crate::error::Result;
use crate::stage::steps::fetch::Fetch;
use crate::stage::{Downloads, Options, ensure};
use crate::ui;

/// Download everything that a recipe draws in, by digest, into the store
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  cargo xtask fetch
  cargo xtask fetch --recipe torch-2.12.1-cpu --all-pythons
      fill a store for an air-gapped machine
  cargo xtask fetch --offline  is everything there?")]
pub struct Args {
    #[command(flatten)]
    recipe: RecipeArgs,
    #[command(flatten)]
    python: ToolArgs,
    /// The packages for every Python of the lock, not for one only
    #[arg(long)]
    all_pythons: bool,
}

/// Runs the command.
///
/// # Errors
/// Bad input in recipe or lock; no Python or compiler that fits; a file cannot be had.
pub fn run(args: Args) -> Result<()> {
    let session = args.recipe.session()?;
    let downloads = if args.all_pythons { Downloads::AllPythons } else { Downloads::Build };
    let build = session.read(&args.recipe, &args.python, Options { downloads, ..Options::default() })?;
    let blobs = ensure::<Fetch>(&build)?.record;
    let total: u64 = blobs.iter().map(|b| b.size).sum();
    if args.recipe.json {
        let files: Vec<_> =
            blobs.iter().map(|b| serde_json::json!({ "sha256": b.sha256, "size": b.size, "path": b.path })).collect();
        print_json(&serde_json::json!({ "schema_version": 1, "recipe": build.recipe.name, "files": files }));
    } else {
        println!("{} files, {}, all with the locked digests", blobs.len(), ui::bytes(total));
    }
    Ok(())
}
