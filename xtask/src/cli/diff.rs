//! `diff`: in what two artifacts differ, and why.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::common::{print_json, set_json};
use crate::diff::{Difference, Finding, diff};
use crate::error::{Answer, Result};
use crate::ui;

/// Say in what two artifacts differ: members, sections, symbols, and the likely cause
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  cargo xtask diff dist/torch-2.12.1*.whl other/torch….whl
  cargo xtask diff libtorch-a.tar.gz libtorch-b.tar.gz --json
  cargo xtask diff one/libuv.a two/libuv.a

Wheels, tar.gz archives, folders, libraries, any two files.
Exit code 0: the same, 1: they differ.")]
pub struct Args {
    /// One artifact
    #[arg(value_name = "A")]
    a: PathBuf,
    /// The other
    #[arg(value_name = "B")]
    b: PathBuf,
    /// Print the result as JSON on standard output
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// Bad input: one of the two is not there, or cannot be read.
pub fn run(args: &Args) -> Result<Answer> {
    set_json(args.json);
    let found = diff(&args.a, &args.b)?;
    if args.json {
        print_json(&serde_json::json!({ "schema_version": 1, "difference": found }));
    } else {
        show(&found);
    }
    if found.identical {
        return Ok(Answer::Yes);
    }
    Ok(Answer::no("differs", format!("{} and {} differ", args.a.display(), args.b.display())))
}

/// Prints it for people.
pub fn show(found: &Difference) {
    if found.identical {
        match &found.sha256[0] {
            Some(sha256) => println!("identical: sha256:{sha256}"),
            None => println!("identical: {} files", found.same),
        }
        return;
    }
    let line = |f: &Finding| {
        let cause = f.cause.map(|c| format!("\n      likely cause: {c}")).unwrap_or_default();
        println!("    {}: {}{cause}", ui::visible(&f.place), ui::visible(&f.what));
    };
    if !found.container.is_empty() {
        println!("  the archives themselves");
        found.container.iter().for_each(line);
    }
    for (which, names) in [("A", &found.only_in_a), ("B", &found.only_in_b)] {
        if !names.is_empty() {
            println!("  only in {which}: {}", ui::visible(&shortened(names)));
        }
    }
    for member in &found.members {
        println!("  {} ({} and {})", ui::visible(&member.name), ui::bytes(member.size[0]), ui::bytes(member.size[1]));
        member.findings.iter().for_each(line);
    }
    println!("  {} members are the same", found.same);
}

fn shortened(names: &[String]) -> String {
    const SHOWN: usize = 20;
    let more = names.len().saturating_sub(SHOWN);
    let shown = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}
