//! `ci`: the workflows and the build matrix, from the recipes.

use clap::{Args as ClapArgs, Subcommand};

use super::common::{own_workspace, print_json, set_json};
use crate::ci;
use crate::error::{Answer, Result};
use crate::ui;

/// The CI workflows and the build matrix, rendered from the recipes
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  cargo xtask ci render
      write ci/github/build-torch.yml and ci/gitlab/build-torch.yml, and again
      what was copied from them to .github/workflows/ or .gitlab-ci.yml
  cargo xtask ci check          are they, and their copies, up to date?
  cargo xtask ci matrix --json  for a CI of your own: recipe × Python × machine

Exit code of check: 0 up to date, 1 not.")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
    /// Print the result as JSON on standard output
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write the workflows, and again what was copied from them
    #[command(after_help = "\
Example:
  cargo xtask ci render")]
    Render,
    /// Fail if a committed workflow, or a copy of one, differs from what would be rendered
    #[command(after_help = "\
Example:
  cargo xtask ci check")]
    Check,
    /// Print the builds: one for each recipe with a lock, Python and machine
    #[command(after_help = "\
Example:
  cargo xtask ci matrix --json")]
    Matrix,
}

/// Runs the command.
///
/// # Errors
/// Bad input: the recipes are those of a release; one of them or its lock cannot be read. The world: a workflow cannot
/// be read or written.
pub fn run(args: &Args) -> Result<Answer> {
    set_json(args.json);
    let workspace = own_workspace()?;
    match args.command {
        Command::Render => {
            let written = ci::write(&workspace)?;
            if args.json {
                print_json(&serde_json::json!({ "schema_version": 1, "written": written }));
            } else if written.is_empty() {
                println!("nothing to write: all is up to date");
            } else {
                written.iter().for_each(|path| println!("{}", path.display()));
            }
            Ok(Answer::Yes)
        }
        Command::Check => {
            let stale = ci::stale(&workspace)?;
            if args.json {
                print_json(&serde_json::json!({ "schema_version": 1, "up_to_date": stale.is_empty(), "stale": stale }));
            }
            if stale.is_empty() {
                if !args.json {
                    println!("{} the workflows are what the recipes make", ui::mark(Some(true)));
                }
                return Ok(Answer::Yes);
            }
            Ok(told(&stale))
        }
        Command::Matrix => {
            let jobs = ci::matrix(&workspace)?;
            if args.json {
                print_json(&serde_json::json!({ "schema_version": 1, "include": jobs }));
            } else {
                for job in &jobs {
                    let state = if job.experimental { " (experimental)" } else { "" };
                    println!("{} Python {} {}{state}", job.recipe, job.python, job.machine);
                }
            }
            Ok(Answer::Yes)
        }
    }
}

/// What is not as it would be rendered, and what to do about it.
fn told(stale: &[ci::Stale]) -> Answer {
    let one = |s: &ci::Stale| match (s.of, s.line) {
        (Some(of), Some(line)) if s.is_copy() => format!("{}, a copy of {of}, differs from line {line} on", s.path),
        (Some(_), Some(line)) => format!("{} differs from line {line} on", s.path),
        (Some(_), None) => format!("{} is missing", s.path),
        (None, _) => format!("{} was rendered by another version, and this one renders no such file", s.path),
    };
    let all: Vec<String> = stale.iter().map(one).collect();
    let mut answer = Answer::no("ci-stale", all.join("; "));
    if stale.iter().any(|s| s.of.is_some()) {
        answer = answer.next("run `cargo xtask ci render` and commit what it writes");
    }
    if stale.iter().any(|s| s.of.is_none()) {
        answer = answer.next("remove the file that is of another version, or copy one from ci/ in its place");
    }
    if stale.iter().any(ci::Stale::is_copy) {
        answer = answer.next("a copy that shall differ is left alone once its line `# Rendered by` is taken out");
    }
    answer
}
