//! `repro`: a second build in another world, compared with the first.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args as ClapArgs;

use super::common::{RecipeArgs, ToolArgs, print_json};
use crate::error::{Answer, Result};
use crate::platform;
use crate::repro::{COMPARABLE, Comparison, Second, Variation, World, compare};
use crate::stage::{self, Build, Options};
use crate::store::KeyBuilder;
use crate::ui;

/// Build twice, the second time in another world, and compare bit for bit
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  cargo xtask repro  hours: all, from an empty store
  cargo xtask repro --until libuv        seconds
  cargo xtask repro --until canary       minutes: the store's objects and c10
  cargo xtask repro --report docs/results/repro.md
  cargo xtask repro --recipe torch-2.12.1-cpu-clang --in /srv/trixie

The second build has another store and build folder, user (if root runs this),
home, host name, clock, time zone, locale, umask, order of folders, number of
jobs, and no compiler cache. With --in it sees the system in that folder in
place of this one's, in a room without network; its compiler has to come with
the recipe.
Exit code 0: the same. 1: not the same, and in what. An interrupted comparison
goes on where it stopped.")]
pub struct Args {
    #[command(flatten)]
    recipe: RecipeArgs,
    #[command(flatten)]
    python: ToolArgs,
    /// Compiler processes of the second build (default: one more than the first has)
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,
    /// The last stage to compare
    #[arg(long, value_name = "STAGE", default_value = "provenance", value_parser = clap::builder::PossibleValuesParser::new(COMPARABLE))]
    until: String,
    /// Folder of the second store, kept for the next run (default: beside the first, under a longer name)
    #[arg(long, value_name = "DIR")]
    second: Option<PathBuf>,
    /// Make the second build on another system: its root folder
    #[arg(long = "in", value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    system: Option<PathBuf>,
    /// Write how it came out, as Markdown
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// Bad input in recipe or lock; no Python or compiler that fits; one of the builds fails; the report cannot be
/// written.
pub fn run(args: &Args) -> Result<Answer> {
    let session = args.recipe.session()?;
    let build =
        session.build(&args.recipe, &args.python, Options { until: Some(args.until.clone()), ..Options::default() })?;
    let started = Instant::now();
    let store = match &args.second {
        Some(dir) => std::path::absolute(dir)?,
        None => {
            let first = session.store.root().parent().unwrap_or(session.store.root());
            let name = first.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let place = if args.system.is_some() { "on/another/system" } else { "in/a/folder/of/another/length" };
            first.with_file_name(format!("{name}-elsewhere")).join(place)
        }
    };
    // Its workspace, its program and the library that varies it are made anew: another comparison would lose its own.
    let name = KeyBuilder::new("repro", 1).text("second", &store.to_string_lossy()).finish();
    let _alone = session.store.lock(&format!("repro-{}", name.short()), session.events.as_ref())?;
    let until = COMPARABLE.iter().find(|s| **s == args.until).copied().unwrap_or(COMPARABLE[0]);
    let second = Second { store, jobs: args.jobs.map_or(stage::jobs(&build) + 1, usize::from), until };
    let system = args.system.as_deref().map(std::path::absolute).transpose()?;
    let variation;
    let (world, mut changes) = match &system {
        Some(system) => {
            let name = platform::distribution(system).unwrap_or_else(|| "one that does not say its name".into());
            (World::System(system), vec![("system".to_owned(), name)])
        }
        None => {
            stage::ensure_compiler(&build)?;
            variation = Variation::make(&second.store.join("variation"), &build.compiler, &build.python.executable)?;
            (World::Varied(&variation), variation.changes.clone())
        }
    };
    changes.push(("jobs".into(), second.jobs.to_string()));
    changes.push(("store".into(), "another folder, of another length, empty at first".into()));
    let found = compare(&build, &second, &world)?;
    let same = found.iter().all(|c| c.difference.identical);
    let seconds = started.elapsed().as_secs_f64();
    if let Some(path) = &args.report {
        crate::store::write_atomically(path, report(&build, &changes, &found, until).as_bytes())?;
    }
    if args.recipe.json {
        print_json(&serde_json::json!({
            "schema_version": 1,
            "recipe": build.recipe.name,
            "same": same,
            "changed": changes,
            "compared": found,
            "seconds": seconds,
        }));
    } else {
        for c in &found {
            println!("{} {}", ui::mark(Some(c.difference.identical)), c.name);
            super::diff::show(&c.difference);
        }
    }
    Ok(if same { Answer::Yes } else { Answer::no("not-reproducible", "two builds of one recipe came out different") })
}

fn report(build: &Build<'_>, changes: &[(String, String)], found: &[Comparison], until: &str) -> String {
    use std::fmt::Write;
    let mut t = String::new();
    let _ = writeln!(t, "# Two builds of {}\n", build.recipe.name);
    let _ =
        writeln!(t, "Written by `cargo xtask repro --recipe {} --until {until} --report FILE`.\n", build.recipe.name);
    let _ = writeln!(
        t,
        "Compiler: {}. Linker: {}. Python {}.\n",
        build.compiler.banner, build.compiler.linker, build.python.version
    );
    let _ = writeln!(t, "## What was different in the second build\n\n| what | in the second build |\n|---|---|");
    for (what, how) in changes {
        let _ = writeln!(t, "| {what} | {how} |");
    }
    let _ = writeln!(t, "\n## What came out\n\n| | same | first | second |\n|---|---|---|---|");
    for c in found {
        let digest = |i: usize| match &c.difference.sha256[i] {
            Some(d) => format!("`{d}`"),
            None => format!("{} files the same", c.difference.same),
        };
        let same = if c.difference.identical { "yes" } else { "**no**" };
        let _ = writeln!(t, "| {} | {same} | {} | {} |", c.name, digest(0), digest(1));
    }
    for c in found.iter().filter(|c| !c.difference.identical) {
        let _ = writeln!(t, "\n## {}\n", c.name);
        for f in &c.difference.container {
            let _ = writeln!(t, "- {}: {}", f.place, f.what);
        }
        for m in &c.difference.members {
            for f in &m.findings {
                let cause = f.cause.map(|c| format!(" ({c})")).unwrap_or_default();
                let _ = writeln!(t, "- `{}` {}: {}{cause}", m.name, f.place, f.what);
            }
        }
    }
    t
}
