//! `tree`: that one stage, and what it stands on.

use clap::Args as ClapArgs;

use super::common::{RecipeArgs, ToolArgs, TrustArgs, print_json};
use crate::error::Result;
use crate::stage::steps::tree::Tree;
use crate::stage::{Options, ensure};

/// Assemble and patch the source of PyTorch, and print the folder
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  cargo xtask tree --recipe torch-2.12.1-cpu
  cargo xtask tree --recipe ~/downloads/theirs.toml --trust

What a recipe from elsewhere runs, it runs in a closed room.")]
pub struct Args {
    #[command(flatten)]
    recipe: RecipeArgs,
    #[command(flatten)]
    python: ToolArgs,
    #[command(flatten)]
    trust: TrustArgs,
}

/// Runs the command.
///
/// # Errors
/// Bad input in recipe or lock; no Python or compiler that fits; a stage fails.
/// The answer is no: nobody trusts the recipe, which came from elsewhere.
pub fn run(args: Args) -> Result<()> {
    let session = args.recipe.session()?;
    if session.in_room(&args.recipe, &args.python, &args.trust, &[], false)? {
        return Ok(());
    }
    let build = session.build(&args.recipe, &args.python, Options::default())?;
    let dir = ensure::<Tree>(&build)?.folder;
    if args.recipe.json {
        print_json(&serde_json::json!({ "schema_version": 1, "recipe": build.recipe.name, "folder": dir }));
    } else {
        println!("{}", dir.display());
    }
    Ok(())
}
