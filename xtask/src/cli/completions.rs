//! `completions`: for shells.

use clap::{Args as ClapArgs, CommandFactory};
use clap_complete::Shell;

use crate::error::Result;

/// Print a shell's completion script
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Example:
  cargo xtask completions bash > ~/.local/share/bash-completion/completions/cargo-xtask")]
pub struct Args {
    /// The shell
    shell: Shell,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    clap_complete::generate(args.shell, &mut super::Cli::command(), "cargo-xtask", &mut std::io::stdout());
    Ok(())
}
