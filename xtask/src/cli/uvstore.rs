//! `uvstore`: the store's server as a program of its own.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::common::{RecipeArgs, TargetArg, ToolArgs, print_json};
use crate::error::Result;
use crate::stage::steps::uvstore::{Target, Uvstore, pack, program};
use crate::stage::{Options, ensure_of};
use crate::ui;

/// Build uvstore: a libuv TCPStore server for a stock torch that has none, as a small program
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  cargo xtask uvstore                   dist/uvstore-2.6.0-linux-x86_64.tar.gz
  cargo xtask uvstore --target windows  dist/uvstore-2.6.0-windows-x86_64.zip
  uvstore run -- python train.py        in any environment with a stock torch
  uvstore run -- torchrun --nproc-per-node 4 train.py

It is made of the store's own sources of the recipe's torch, with libuv, and
tried with 32 clients in two processes before it is packed. docs/uvstore.md says
what it does for a stock torch, and what it cannot.")]
pub struct Args {
    #[command(flatten)]
    recipe: RecipeArgs,
    #[command(flatten)]
    python: ToolArgs,
    /// System that it is for
    #[arg(long, value_enum, default_value_t = TargetArg::Host)]
    target: TargetArg,
    /// Folder for the archive
    #[arg(long, value_name = "DIR", default_value = "dist")]
    out: PathBuf,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    let session = args.recipe.session()?;
    let build = session.build(&args.recipe, &args.python, Options::default())?;
    let target = match args.target {
        TargetArg::Windows => Target::windows(&build)?,
        TargetArg::Host => Target::Host,
    };
    let made = ensure_of::<Uvstore>(&build, target.of())?;
    let (program, check) = (program(&made), &made.record.check);
    let (archive, sha256) = pack(&build, &target, &program, &args.out)?;
    if args.recipe.json {
        print_json(&serde_json::json!({
            "schema_version": 1,
            "recipe": build.recipe.name,
            "archive": archive,
            "sha256": sha256,
            "program": program,
            "check": check,
        }));
    } else {
        println!("{} {}", ui::mark(Some(true)), archive.display());
        println!("  sha256:{sha256}");
        println!("  tried with 32 clients in two processes: {check}");
    }
    Ok(())
}
