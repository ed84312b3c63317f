//! `build-torch`: all stages, ends with artifacts in `dist/` and a summary a person can read.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args as ClapArgs;

use super::common::{PythonArgs, RecipeArgs, print_json};
use crate::error::Result;
use crate::stage::{self, Artifacts, Options, Outcome, Plan};
use crate::{platform, ui};

/// Build PyTorch from source, with a proven libuv TCPStore: wheel and libtorch bundle
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  cargo xtask build-torch
  cargo xtask build-torch --python 3.12 --jobs 8 --out wheels
  cargo xtask build-torch --recipe torch-2.6.0-cpu-full --dry-run
  cargo xtask build-torch --offline --json > result.json

An interrupted build goes on where it stopped when the same command is run again.")]
pub struct Args {
    #[command(flatten)]
    recipe: RecipeArgs,
    #[command(flatten)]
    python: PythonArgs,
    /// Compiler processes at a time (default: by cores and free memory)
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,
    /// Folder for the artifacts
    #[arg(long, value_name = "DIR", default_value = "dist")]
    out: PathBuf,
    /// Show what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Stop after a stage, and print where its result stands
    #[arg(long, value_name = "STAGE", value_parser = clap::builder::PossibleValuesParser::new(stage::ORDER))]
    until: Option<String>,
    /// Compile without a compiler cache
    #[arg(long)]
    no_compiler_cache: bool,
}

/// Runs the command.
pub fn run(args: Args) -> Result<()> {
    let session = args.recipe.session()?;
    let build = session.build(
        &args.recipe,
        &args.python,
        Options {
            jobs: args.jobs.map(usize::from),
            no_compiler_cache: args.no_compiler_cache,
            until: args.until.clone(),
            out: args.out.clone(),
            ..Options::default()
        },
    )?;
    if args.dry_run {
        let plan = stage::plan(&build)?;
        if args.recipe.json {
            print_json(&serde_json::json!({ "schema_version": 1, "recipe": build.recipe.name, "python": build.python.version, "plan": plan }));
        } else {
            show_plan(&build, &plan);
        }
        return Ok(());
    }
    let started = Instant::now();
    let outcome = stage::run(&build)?;
    let seconds = started.elapsed().as_secs_f64();
    if args.recipe.json {
        print_json(&serde_json::json!({
            "schema_version": 1,
            "recipe": build.recipe.name,
            "python": build.python.version,
            "outcome": outcome,
            "seconds": seconds,
            "peak_memory": platform::peak_memory(),
        }));
    } else {
        match outcome {
            Outcome::Done(artifacts) => show(&artifacts, seconds),
            Outcome::Stopped { after, folder } => println!("stopped after {after}: {}", folder.display()),
        }
    }
    Ok(())
}

fn show_plan(build: &stage::Build<'_>, plan: &Plan) {
    println!("{} {} for Python {} with {}", build.recipe.name, build.recipe.torch.full_version(), build.python.version, build.compiler.banner);
    for s in &plan.stages {
        println!("  {:10} {:9} {}", s.stage, if s.cached { "in store" } else { "to do" }, s.key.as_deref().map_or("", |k| &k[..20]));
    }
    let total: u64 = plan.downloads.iter().map(|(_, n)| n).sum();
    if plan.downloads.is_empty() {
        println!("nothing to download");
    } else {
        println!("to download: {} files, {}", plan.downloads.len(), ui::bytes(total));
    }
    println!("jobs: {}   work folder: {}", stage::jobs(build), plan.work.display());
}

fn show(artifacts: &Artifacts, seconds: f64) {
    println!("\ntorch with libuv, built and verified ({})", ui::duration(seconds));
    for (name, input) in &artifacts.digests {
        println!("  {:>10}  sha256:{}  {name}", ui::bytes(input.size), &input.sha256);
    }
    for check in &artifacts.verified.checks {
        println!("  ✓ {}", check.name);
    }
    for skipped in &artifacts.verified.skipped {
        println!("  - not run: {skipped}");
    }
    println!("\n  python -m pip install {}", artifacts.wheel.display());
}
