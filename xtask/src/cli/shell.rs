//! `shell`: a shell inside the exact build environment of a recipe, to debug it.

use clap::Args as ClapArgs;

use super::common::{RecipeArgs, ToolArgs, TrustArgs};
use crate::error::{Answer, Error, Result};
use crate::stage::{self, Options};

/// Open a shell in the exact environment that a recipe is built in
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  cargo xtask shell
  cargo xtask shell -- ninja -C build -t commands lib/libc10.so
  cargo xtask shell --recipe ~/downloads/theirs.toml --trust

What a recipe from elsewhere runs, it runs in a closed room.")]
pub struct Args {
    #[command(flatten)]
    recipe: RecipeArgs,
    #[command(flatten)]
    python: ToolArgs,
    #[command(flatten)]
    trust: TrustArgs,
    /// A command to run instead of a shell
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<std::ffi::OsString>,
}

/// Runs the command.
///
/// # Errors
/// Bad input in recipe or lock; no Python or compiler that fits; what configure needs cannot be made; the shell
/// cannot be started. The answer is no: nobody trusts the recipe, which came from elsewhere.
pub fn run(args: Args) -> Result<Answer> {
    let session = args.recipe.session()?;
    if session.in_room(&args.recipe, &args.python, &args.trust, &[], true)? {
        return Ok(Answer::Yes);
    }
    let build = session.build(&args.recipe, &args.python, Options::default())?;
    let mut command = stage::shell(&build, &args.command)?;
    let status = command.status().map_err(|e| Error::world("shell", format!("the shell cannot be started: {e}")))?;
    Ok(if status.success() { Answer::Yes } else { Answer::no("shell", format!("the command ended with {status}")) })
}
