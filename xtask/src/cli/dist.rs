//! `dist`: the files of a release.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::common::{own_workspace, print_json, set_json, sink};
use crate::dist;
use crate::error::{Answer, Result};
use crate::ui;

/// Make the files of a release: torchmill as wheel, source and program, uvstore as wheels
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  cargo xtask dist
  cargo xtask dist --twice      and say whether the bytes are the same

Made from the commit that is checked out, in a checkout of its own: what is not
committed is not in it. Takes some minutes of CPU.

Exit code: 0 made, 1 with --twice: the second run made other bytes.")]
pub struct Args {
    /// Folder for the files
    #[arg(long, value_name = "DIR", default_value = "dist/release")]
    out: PathBuf,
    /// Folder to work in
    #[arg(long, value_name = "DIR", default_value = "target/dist")]
    work: PathBuf,
    /// Make everything a second time, in another folder, and compare
    #[arg(long)]
    twice: bool,
    /// Print the result as JSON on standard output (events as JSON lines on standard error)
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// Misuse: this is no clone. The world: a compiler, maturin or the index fails. Also: a file would hold this machine's
/// folders.
pub fn run(args: &Args) -> Result<Answer> {
    set_json(args.json);
    let events = sink(args.json);
    let root = own_workspace()?.root;
    let from = dist::head(&root)?;
    let (work, out) = (std::path::absolute(&args.work)?, std::path::absolute(&args.out)?);
    let made = dist::make(&root, &from, &work, &out, events.as_ref())?;
    let mut other = Vec::new();
    if args.twice {
        events.note("a second time, in another folder".into());
        let second = work.join("a-second-time");
        let again = dist::make(&root, &from, &second, &second.join("out"), events.as_ref())?;
        other.extend(made.iter().filter(|m| !again.contains(m)).map(|m| m.file.clone()));
    }
    if args.json {
        print_json(&serde_json::json!({
            "schema_version": 1, "from": from, "files": made, "twice": args.twice, "differ": other,
        }));
    } else {
        for m in &made {
            println!("{}  {} ({})", m.sha256, out.join(&m.file).display(), ui::bytes(m.size));
        }
    }
    if other.is_empty() {
        return Ok(Answer::Yes);
    }
    Ok(Answer::no("differ", format!("made twice, these are not the same: {}", other.join(", ")))
        .next("cargo xtask diff shows in what"))
}
