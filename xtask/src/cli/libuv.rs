//! `libuv`: that one stage, and what it stands on.

use clap::Args as ClapArgs;

use super::common::{RecipeArgs, ToolArgs, print_json};
use crate::error::Result;
use crate::stage::steps::libuv::Libuv;
use crate::stage::{Options, ensure};

/// Build libuv from source, into a prefix of its own, and print the prefix
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Example:
  cargo xtask libuv --recipe torch-2.12.1-cpu")]
pub struct Args {
    #[command(flatten)]
    recipe: RecipeArgs,
    #[command(flatten)]
    python: ToolArgs,
}

/// Runs the command.
///
/// # Errors
/// Bad input in recipe or lock; no Python or compiler that fits; a stage fails.
pub fn run(args: Args) -> Result<()> {
    let session = args.recipe.session()?;
    let build = session.build(&args.recipe, &args.python, Options::default())?;
    let dir = ensure::<Libuv>(&build)?.folder;
    if args.recipe.json {
        print_json(&serde_json::json!({ "schema_version": 1, "recipe": build.recipe.name, "folder": dir }));
    } else {
        println!("{}", dir.display());
    }
    Ok(())
}
