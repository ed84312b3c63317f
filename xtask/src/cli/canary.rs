//! `canary`: the stage that proves libuv within minutes, by itself, and for Windows.

use clap::Args as ClapArgs;

use super::common::{RecipeArgs, TargetArg, ToolArgs, print_json};
use crate::error::{Answer, Result};
use crate::stage::peers::Meeting;
use crate::stage::steps::canary::Canary;
use crate::stage::steps::uvstore::{Target, Uvstore, is_part, program};
use crate::stage::{Build, Downloads, Options, ensure, ensure_of};
use crate::ui;

/// Prove within minutes that the store of a recipe runs on libuv, here or on Windows
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  cargo xtask canary
  cargo xtask canary --target windows

For Windows, libuv, c10 and the store of the recipe's tree are compiled with
mingw-w64 and run with Wine: a server on each system, client processes on both,
one of them killed in the middle. What mingw-w64 alone needs changed stands in
patches/mingw and goes into no torch.")]
pub struct Args {
    #[command(flatten)]
    recipe: RecipeArgs,
    #[command(flatten)]
    tools: ToolArgs,
    /// System that the store is tried on
    #[arg(long, value_enum, default_value_t = TargetArg::Host)]
    target: TargetArg,
}

/// Runs the command.
///
/// # Errors
/// Bad input in recipe or lock; no Python or compiler that fits; a stage fails.
/// For Windows: MinGW or Wine is not installed, or a process cannot be started or does not end well.
pub fn run(args: &Args) -> Result<Answer> {
    let session = args.recipe.session()?;
    let options = match args.target {
        TargetArg::Host => Options::default(),
        TargetArg::Windows => Options { downloads: Downloads::Only(is_part), ..Options::default() },
    };
    let build = session.build(&args.recipe, &args.tools, options)?;
    match args.target {
        TargetArg::Host => here(args, &build).map(Answer::from),
        TargetArg::Windows => windows(args, &build),
    }
}

fn here(args: &Args, build: &Build<'_>) -> Result<()> {
    let report = &ensure::<Canary>(build)?.record.report;
    if args.recipe.json {
        print_json(&serde_json::json!({ "schema_version": 1, "recipe": build.recipe.name, "report": report }));
    } else {
        println!(
            "{} a libuv store of this build served {} clients, {} operations",
            ui::mark(Some(true)),
            report["clients"],
            report["operations"]
        );
    }
    Ok(())
}

fn windows(args: &Args, build: &Build<'_>) -> Result<Answer> {
    // Both tools before minutes of compiling.
    let target = Target::windows(build)?;
    let made = |target: &Target| ensure_of::<Uvstore>(build, target.of()).map(|done| target.peer(&program(&done)));
    let (windows, linux) = (made(&target)?, made(&Target::Host)?);
    let meet = || -> Result<Vec<Meeting>> {
        Ok(vec![
            windows.serve(&[&windows, &windows, &windows], true)?,
            windows.serve(&[&linux, &windows], false)?,
            linux.serve(&[&windows, &windows], true)?,
        ])
    };
    let meetings = {
        let _turn = windows.turn()?;
        meet()?
    };
    let wrong: Vec<&str> = meetings.iter().flat_map(|m| &m.wrong).map(String::as_str).collect();
    let answer = if wrong.is_empty() {
        Answer::Yes
    } else {
        Answer::no("uvstore", format!("the store served its clients wrong: {}", wrong.join(", ")))
    };
    if args.recipe.json {
        let (compiler, wine) = target.tools()?.unwrap_or_default();
        print_json(&serde_json::json!({
            "schema_version": 1,
            "recipe": build.recipe.name,
            "compiler": compiler,
            "wine": wine,
            "meetings": meetings,
        }));
        return Ok(answer);
    }
    for m in &meetings {
        println!(
            "{} libuv server on {}, client processes on {}{}: {} operations {}, {:.1} s",
            ui::mark(Some(m.wrong.is_empty())),
            m.server,
            m.clients.join(", "),
            if m.one_killed { ", one more killed in the middle" } else { "" },
            m.operations,
            if m.wrong.is_empty() { "right" } else { "tried" },
            m.seconds,
        );
    }
    Ok(answer)
}
