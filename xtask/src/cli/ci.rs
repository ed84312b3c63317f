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
      write ci/github/build-torch.yml and ci/gitlab/build-torch.yml
  cargo xtask ci check          are the committed files what would be rendered?
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
    /// Write the workflows
    #[command(after_help = "\
Example:
  cargo xtask ci render")]
    Render,
    /// Fail if a committed workflow differs from what would be rendered
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
            let told: Vec<String> = stale
                .iter()
                .map(|s| match s.line {
                    Some(line) => format!("{} differs from line {line} on", s.path),
                    None => format!("{} is missing", s.path),
                })
                .collect();
            Ok(Answer::no("ci-stale", told.join("; ")).next("run `cargo xtask ci render` and commit what it writes"))
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
