//! `man`: man pages.

use std::path::{Path, PathBuf};

use clap::{Args as ClapArgs, Command, CommandFactory};

use super::common::{print_json, set_json};
use crate::error::Result;
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
///
/// # Errors
/// The world: a page cannot be written.
pub fn run(args: &Args) -> Result<()> {
    set_json(args.json);
    fs_err::create_dir_all(&args.out)?;
    let mut command = of_torchmill(super::Cli::command()).name("torchmill").bin_name("torchmill");
    command = command.disable_help_subcommand(true);
    command.build();
    let mut pages = Vec::new();
    write(&command, &args.out, &mut pages)?;
    pages.sort();
    if args.json {
        print_json(&serde_json::json!({ "schema_version": 1, "folder": args.out, "pages": pages }));
    } else {
        println!("{} pages in {}", pages.len(), args.out.display());
    }
    Ok(())
}

/// Writes the page of a command and those of the commands below it.
fn write(command: &Command, out: &Path, pages: &mut Vec<PathBuf>) -> Result<()> {
    for below in command.get_subcommands().filter(|c| !c.is_hide_set()) {
        write(below, out, pages)?;
    }
    let page = clap_mangen::Man::new(command.clone()).source(concat!("torchmill ", env!("CARGO_PKG_VERSION")));
    let path = out.join(page.get_filename());
    let mut text = Vec::new();
    page.render(&mut text)?;
    fs_err::write(&path, with_examples(&String::from_utf8_lossy(&text)))?;
    pages.push(path);
    Ok(())
}

/// clap calls what stands below the help `EXTRA`, and lets man fill its lines: an example that is broken in two cannot
/// be typed.
fn with_examples(page: &str) -> String {
    let Some((above, below)) = page.split_once(".SH EXTRA\n") else { return page.to_owned() };
    let (title, below) = match below.split_once(":\n") {
        Some(("Example" | "Examples", examples)) => ("EXAMPLES", examples),
        _ => ("NOTES", below),
    };
    let (kept, rest) = match below.find("\n.SH ") {
        Some(end) => below.split_at(end + 1),
        None => (below, ""),
    };
    format!("{above}.SH {title}\n.nf\n{kept}.fi\n{rest}")
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
    // The page says the name before it.
    let about = about.map(|a| a.strip_prefix("torchmill: ").map(str::to_owned).unwrap_or(a));
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
