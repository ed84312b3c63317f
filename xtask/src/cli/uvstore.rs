//! `uvstore`: the store's server as a program of its own, and as a Python package.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::common::{RecipeArgs, TargetArg, ToolArgs, print_json};
use crate::error::Result;
use crate::stage::steps::uvstore::{Target, Uvstore, is_part, program};
use crate::stage::{Downloads, Options, ensure_of, uvstore_pack};
use crate::ui;

/// Build uvstore: a libuv TCPStore server for a stock torch that has none, as a small program or a wheel
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  cargo xtask uvstore                   dist/uvstore-2.12.1-linux-x86_64.tar.gz
  cargo xtask uvstore --target windows  dist/uvstore-2.12.1-windows-x86_64.zip
  cargo xtask uvstore --wheel           dist/uvstore-0.1.0-py3-none-….whl
  cargo xtask uvstore --wheel --target windows
  uvstore run -- python train.py        in any environment with a stock torch
  uvstore run -- torchrun --nproc-per-node 4 train.py

It is made of the store's own sources of the recipe's torch, with libuv, in
about a minute of CPU, and tried with 32 clients in two processes before it is
packed. The wheel holds a hook too: where it is installed, `torchrun` and
`python` need no launcher. docs/uvstore.md says what it does for a stock torch,
and what it cannot.")]
pub struct Args {
    #[command(flatten)]
    recipe: RecipeArgs,
    #[command(flatten)]
    python: ToolArgs,
    /// System that it is for
    #[arg(long, value_enum, default_value_t = TargetArg::Host)]
    target: TargetArg,
    /// Make the Python package, with hook and launcher, in place of the archive
    #[arg(long)]
    wheel: bool,
    /// Folder for what is made
    #[arg(long, value_name = "DIR", default_value = "dist")]
    out: PathBuf,
}

/// Runs the command.
///
/// # Errors
/// Bad input in recipe or lock; no Python or compiler that fits; a stage fails; what comes out cannot be
/// written. For Windows: MinGW or Wine is not installed.
pub fn run(args: &Args) -> Result<()> {
    let session = args.recipe.session()?;
    let options = Options { downloads: Downloads::Only(is_part), ..Options::default() };
    let build = session.build(&args.recipe, &args.python, options)?;
    let target = match args.target {
        TargetArg::Windows => Target::windows(&build)?,
        TargetArg::Host => Target::Host,
    };
    let made = ensure_of::<Uvstore>(&build, target.of())?;
    let (program, record) = (program(&made), &made.record);
    let pack = if args.wheel { uvstore_pack::wheel } else { uvstore_pack::archive };
    let packed = pack(&build, &target, &program, &args.out)?;
    if args.recipe.json {
        print_json(&serde_json::json!({
            "schema_version": 1,
            "recipe": build.recipe.name,
            (if args.wheel { "wheel" } else { "archive" }): packed.path,
            "sha256": packed.sha256,
            "size": packed.size,
            "program": program,
            "check": record.check,
            "steps": record.steps,
        }));
    } else {
        println!("{} {} ({})", ui::mark(Some(true)), packed.path.display(), ui::bytes(packed.size));
        println!("  sha256:{}", packed.sha256);
        println!("  tried with 32 clients in two processes: {}", record.check);
    }
    Ok(())
}
