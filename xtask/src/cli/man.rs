//! `man`: man pages.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Command, CommandFactory};

use super::common::{print_json, set_json};
use crate::error::{Error, Result};
use crate::ui;

/// Write man pages: one a command
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Example:
  cargo xtask man --out ~/.local/share/man/man1  then: man torchmill-inspect")]
pub struct Args {
    /// Folder for the pages; made where there is none
    #[arg(long, value_name = "DIR", default_value = "man")]
    out: PathBuf,
    /// Print the result as JSON on standard output
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    set_json(args.json);
    fs_err::create_dir_all(&args.out)?;
    let command = of_torchmill(super::Cli::command()).name("torchmill").bin_name("torchmill");
    clap_mangen::generate_to(command, &args.out)
        .map_err(|e| Error::world("man", format!("{}: {e}", args.out.display())))?;
    let mut pages: Vec<PathBuf> = fs_err::read_dir(&args.out)?.flatten().map(|e| e.path()).collect();
    pages.retain(|p| p.extension().is_some_and(|e| e == "1"));
    pages.sort();
    if args.json {
        print_json(&serde_json::json!({ "schema_version": 1, "folder": args.out, "pages": pages }));
    } else {
        println!("{} pages in {}", pages.len(), args.out.display());
    }
    Ok(())
}

/// A page is read where the program is installed, and its name there is `torchmill`.
fn of_torchmill(command: Command) -> Command {
    let named = |text: &clap::builder::StyledStr| ui::name::installed(&text.to_string());
    let usage = command.clone().render_usage().to_string();
    let command = match usage.strip_prefix("Usage: ").filter(|u| u.contains("cargo xtask")) {
        Some(usage) => command.override_usage(ui::name::installed(usage)),
        None => command,
    };
    let examples = command.get_after_help().map(named);
    let about = command.get_about().map(named);
    let command = match examples {
        Some(examples) => command.after_help(examples),
        None => command,
    };
    let command = match about {
        Some(about) => command.about(about),
        None => command,
    };
    command.mut_subcommands(of_torchmill)
}
