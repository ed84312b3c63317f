//! `build-torch`: all stages, ends with artifacts in `dist/` and a summary a person can read.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args as ClapArgs;

use super::common::{RecipeArgs, ToolArgs, TrustArgs, print_json};
use crate::artifact::dsse::KeySource;
use crate::error::Result;
use crate::stage::{self, Artifacts, Options, Outcome, Plan, PlannedStage, State};
use crate::{platform, ui};

/// Build PyTorch from source, with a proven libuv TCPStore: wheel and libtorch bundle
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  cargo xtask build-torch
  cargo xtask build-torch --python 3.12 --jobs 8 --out wheels
  cargo xtask build-torch --recipe torch-2.6.0-cpu-full --dry-run
  cargo xtask build-torch --offline --json > result.json
  cargo xtask build-torch --recipe ~/downloads/theirs.toml --trust

An interrupted build goes on where it stopped when the same command is run
again. A recipe from elsewhere is built in a closed room.")]
pub struct Args {
    #[command(flatten)]
    recipe: RecipeArgs,
    #[command(flatten)]
    python: ToolArgs,
    #[command(flatten)]
    trust: TrustArgs,
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
    #[arg(long, value_name = "STAGE", value_parser = clap::builder::PossibleValuesParser::new(stage::ORDER.iter()))]
    until: Option<String>,
    /// Write what was built, how long it took and what was verified, as Markdown
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Compile without a compiler cache
    #[arg(long)]
    no_compiler_cache: bool,
    /// Sign the statement about the artifacts: an Ed25519 key (PEM file), or env:VARIABLE
    #[arg(long, value_name = "FILE|env:VARIABLE", allow_hyphen_values = true, value_hint = clap::ValueHint::FilePath)]
    sign: Option<String>,
}

/// Runs the command.
pub fn run(args: Args) -> Result<()> {
    let session = args.recipe.session()?;
    if session.in_room(&args.recipe, &args.python, &args.trust, std::slice::from_ref(&args.out), false)? {
        return Ok(());
    }
    // A key that cannot be used is found out before the hours, not after; and no code that is built finds it.
    let key = args.sign.as_deref().map(super::sign::key_source).transpose()?;
    let secret = key.as_ref().map(KeySource::load).transpose()?;
    if let Some(KeySource::Environment(name)) = &key {
        platform::scrub_environment(Some(name));
    }
    // Before anything that can fail or take hours: nobody knows yet what comes of a draft.
    let recipe = session.recipe(&args.recipe)?;
    if recipe.torch.status.is_draft() {
        session.events.warn(format!(
            "{} is a draft: it was never built to the end here, and may stop anywhere (`cargo xtask recipe list`)",
            recipe.name
        ));
    }
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
            print_json(
                &serde_json::json!({ "schema_version": 1, "recipe": build.recipe.name, "draft": build.recipe.torch.status.is_draft(), "python": build.python.version, "plan": plan }),
            );
        } else {
            show_plan(&build, &plan);
        }
        return Ok(());
    }
    let started = Instant::now();
    let outcome = stage::run(&build)?;
    let seconds = started.elapsed().as_secs_f64();
    if let (Some(path), Outcome::Done(artifacts)) = (&args.report, &outcome) {
        let text = report(&build, artifacts, seconds)?;
        crate::store::write_atomically(path, text.as_bytes())?;
    }
    if let (Some(secret), Outcome::Done(artifacts)) = (&secret, &outcome) {
        let (envelope, id) = super::sign::sign(&artifacts.statement, secret)?;
        session.events.note(format!("{} signed by the key {id}", envelope.display()));
    }
    let (judging, judged) = crate::store::judging_spent();
    if args.recipe.json {
        print_json(&serde_json::json!({
            "schema_version": 1,
            "recipe": build.recipe.name,
            "draft": build.recipe.torch.status.is_draft(),
            "python": build.python.version,
            "outcome": outcome,
            "seconds": seconds,
            "peak_memory": platform::peak_memory(),
            // What was hashed in the store because it was used; seconds are added up over all threads.
            "judged": { "bytes": judged, "thread_seconds": judging.as_secs_f64() },
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
    println!(
        "{}{} {} for Python {} with {}",
        build.recipe.name,
        if build.recipe.torch.status.is_draft() { " (a draft)" } else { "" },
        build.recipe.torch.full_version(),
        build.python.version,
        build.compiler.banner
    );
    for stage in &plan.stages {
        show_stage(stage);
    }
    let total: u64 = plan.downloads.iter().map(|(_, n)| n).sum();
    if plan.downloads.is_empty() {
        println!("nothing to download");
    } else {
        println!("to download: {} files, {}", plan.downloads.len(), ui::bytes(total));
    }
    println!("jobs: {}   work folder: {}", stage::jobs(build), plan.work.display());
}

/// Reasons that are shown: a recipe for another version differs in hundreds.
const REASONS: usize = 6;

fn show_stage(planned: &PlannedStage) {
    let name = format!("{} {}", planned.stage, planned.name);
    let state = match planned.state {
        State::Done => "in store",
        State::NotNeeded => "not needed",
        State::ToDo => "to do",
        State::NotOfThisBuild => "not in this recipe",
    };
    let key = planned.key.as_deref().filter(|_| planned.state != State::NotOfThisBuild).map_or("", |key| &key[..20]);
    println!("  {:14} {state:10} {key}", name.trim_end());
    let more = planned.why.len().saturating_sub(REASONS);
    for why in planned.why.iter().take(REASONS) {
        println!("      because {why}");
    }
    if more > 0 {
        println!("      and {more} more (--json has all)");
    }
}

/// The record of a build, for `docs/results`: the same for everyone but for what it measured.
fn report(build: &stage::Build<'_>, artifacts: &Artifacts, seconds: f64) -> Result<String> {
    use std::fmt::Write;
    let mut t = String::new();
    let recipe = &build.recipe;
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let _ = writeln!(t, "# {} {}\n", recipe.name, recipe.torch.full_version());
    let _ = writeln!(t, "Written by `cargo xtask build-torch --recipe {} --report FILE`.\n", recipe.name);
    let _ = writeln!(t, "| what | |\n|---|---|");
    for (what, value) in [
        ("torchmill", env!("CARGO_PKG_VERSION").to_owned()),
        ("compiler", build.compiler.banner.clone()),
        ("linker", build.compiler.linker.clone()),
        ("Python", build.python.version.clone()),
        ("libuv", recipe.libuv.version.clone()),
        ("cores", cores.to_string()),
        ("jobs", stage::jobs(build).to_string()),
        ("wall time of the run that wrote this", ui::duration(seconds)),
        ("peak memory of the orchestrator in that run", platform::peak_memory().map_or("unknown".into(), ui::bytes)),
    ] {
        let _ = writeln!(t, "| {what} | {value} |");
    }
    let _ = writeln!(t, "\n## Stages\n\nOver all runs that a stage took, on all cores.\n");
    let _ = writeln!(t, "| stage | wall time | CPU time | runs |\n|---|---|---|---|");
    let stages = stage::timings(build)?;
    for (stage, timing) in &stages {
        let (wall, cpu) = (ui::duration(timing.wall), ui::duration(timing.cpu));
        let _ = writeln!(t, "| {stage} | {wall} | {cpu} | {} |", timing.runs);
    }
    let sum = |f: fn(&stage::Timing) -> f64| ui::duration(stages.iter().map(|(_, timing)| f(timing)).sum());
    let _ = writeln!(t, "| **all** | {} | {} | |", sum(|t| t.wall), sum(|t| t.cpu));
    let _ = writeln!(t, "\n## Artifacts\n\n| file | bytes | SHA-256 |\n|---|---|---|");
    for (name, input) in &artifacts.digests {
        let _ = writeln!(t, "| `{name}` | {} | `{}` |", input.size, input.sha256);
    }
    let _ = writeln!(t, "\n## Verified\n\n| check | wall time | what it printed |\n|---|---|---|");
    for check in &artifacts.verified.checks {
        let mut said = check.said.clone();
        if let Some(map) = said.as_object_mut() {
            // A folder of this machine tells nobody anything.
            map.remove("location");
        }
        let _ = writeln!(t, "| {} | {} | `{said}` |", check.name, ui::duration(check.seconds));
    }
    for skipped in &artifacts.verified.skipped {
        let _ = writeln!(t, "\nNot run: {skipped}.");
    }
    Ok(t)
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
