//! `build-torch`: all stages, ends with artifacts in `dist/` and a summary a person can read.

use std::path::{Component, PathBuf};
use std::time::Instant;

use clap::Args as ClapArgs;
use ed25519_dalek::SigningKey;

use super::common::{RecipeArgs, Session, ToolArgs, TrustArgs, WithArgs, print_json};
use super::shared::{CacheArgs, FarmArgs};
use crate::artifact::dsse::KeySource;
use crate::error::{Error, Result};
use crate::event::Sink;
use crate::recipe::Recipe;
use crate::repro::foreign;
use crate::stage::{self, Artifacts, Options, Outcome, Part, Plan, PlannedStage, State, Step};
use crate::{platform, ui};

/// Build PyTorch from source, with a proven libuv TCPStore: wheel and libtorch bundle
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  cargo xtask build-torch
  cargo xtask build-torch --python 3.12 --jobs 8 --out wheels
  cargo xtask build-torch --python 3.11,3.13   two, torch_cpu compiled once
  cargo xtask build-torch --recipe torch-2.6.0-cpu --with torchvision,torchaudio
  cargo xtask build-torch --offline --json > result.json
  cargo xtask build-torch --cache /mnt/cache --cache-trust build.pub
  cargo xtask build-torch --farm http://10.0.0.1:10600
  cargo xtask build-torch --shard 2/4 --cache /mnt/cache --cache-trust build.pub
  cargo xtask build-torch --cache-audit 100    compile what came in again
  cargo xtask build-torch --recipe ~/downloads/theirs.toml --trust

An interrupted build goes on where it stopped when the same command is run
again. What a recipe from elsewhere runs, it runs in a closed room.")]
pub struct Args {
    #[command(flatten)]
    recipe: RecipeArgs,
    #[command(flatten)]
    python: ToolArgs,
    #[command(flatten)]
    with: WithArgs,
    #[command(flatten)]
    trust: TrustArgs,
    /// Compiler processes at a time (default: by cores and free memory)
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,
    /// Folder for the artifacts
    #[arg(long, value_name = "DIR", default_value = "dist")]
    out: PathBuf,
    /// When a step fails, go on with all that does not wait for it, and name what failed at the end
    #[arg(long, short)]
    keep_going: bool,
    /// Show what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Stop after a stage, and print where its result stands
    #[arg(long, value_name = "STAGE", value_parser = clap::builder::PossibleValuesParser::new(stage::ORDER.iter().chain(stage::BESIDE.iter())))]
    until: Option<String>,
    /// Compile the I-th of N parts of the objects, and stop: for a build that several machines do through one
    /// compiler cache (docs/ci.md)
    #[arg(long, value_name = "I/N", conflicts_with_all = ["until", "no_compiler_cache", "report", "sign"])]
    shard: Option<Part>,
    /// Write what was built, how long it took and what was verified, as Markdown
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Compile without a compiler cache
    #[arg(long)]
    no_compiler_cache: bool,
    #[command(flatten)]
    cache: CacheArgs,
    #[command(flatten)]
    farm: FarmArgs,
    /// Sign the statement about the artifacts: an Ed25519 key (PEM file), or env:VARIABLE
    #[arg(long, value_name = "FILE|env:VARIABLE", allow_hyphen_values = true, value_hint = clap::ValueHint::FilePath)]
    sign: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// Bad input in arguments, recipe or lock; no Python or compiler that fits; a stage fails; no report can be written.
/// The answer is no: nobody trusts the recipe, which came from elsewhere.
pub fn run(mut args: Args) -> Result<()> {
    args.python.companions.append(&mut args.with.with);
    let session = args.recipe.session()?;
    check_report(&args, &session)?;
    // Who reads what is for several Pythons reads it for the first.
    let first = args.python.python.as_deref().and_then(|p| p.split(',').next()).filter(|p| *p != "all");
    let tools = ToolArgs { python: first.map(str::to_owned), ..args.python.clone() };
    if session.in_room(&args.recipe, &tools, &args.trust, std::slice::from_ref(&args.out), false)? {
        return Ok(());
    }
    // A key that cannot be used is found out before the hours, not after; and no code that is built finds it.
    let key = args.sign.as_deref().map(super::sign::key_source).transpose()?;
    let secret = key.as_ref().map(KeySource::load).transpose()?;
    // The farm first: a cache whose key is a variable takes all secrets out of the environment, the farm's token too.
    let farm = args.farm.chosen()?;
    let chosen = args.cache.chosen()?;
    if farm.is_some() && args.shard.is_some() {
        session
            .events
            .warn("with --shard the part's objects are compiled here: they are for the caches of others".into());
    }
    if farm.is_some() && args.no_compiler_cache {
        session.events.warn("with --no-compiler-cache nothing from elsewhere is used: no farm either".into());
    }
    if let Some(KeySource::Environment(name)) = &key {
        platform::scrub_environment(Some(name));
    }
    // Before anything that can fail or take hours: nobody knows yet what comes of a draft. A recipe in an artifact does
    // not say what it is.
    let recipe = session.recipe(&args.recipe)?;
    if recipe.torch.status.is_draft() && !foreign::is_of_artifact(&session.workspace) {
        session.events.warn(format!(
            "{} is a draft: it was never built to the end here, and may stop anywhere (`cargo xtask recipe list`)",
            recipe.name
        ));
    }
    let pythons = pythons(args.python.python.as_deref(), &recipe)?;
    // Each is opened before the first is built: what is wrong with the last is not found out after hours.
    let builds = pythons
        .iter()
        .map(|python| {
            let tools = ToolArgs { python: python.clone(), ..args.python.clone() };
            let options = Options {
                jobs: args.jobs.map(usize::from),
                keep_going: args.keep_going,
                no_compiler_cache: args.no_compiler_cache,
                shared_cache: chosen.shared.clone(),
                farm: farm.clone(),
                cache_audit: chosen.audit,
                until: args.until.clone().or(args.shard.map(|_| stage::steps::shard::Shard::NAME.to_owned())),
                part: args.shard,
                out: args.out.clone(),
                ..Options::default()
            };
            session.build(&args.recipe, &tools, options)
        })
        .collect::<Result<Vec<_>>>()?;
    builds.iter().try_for_each(stage::steps::cuda::demand)?;
    if let Some(first) = builds.first() {
        tell_of_the_untried(first, session.events.as_ref());
        tell_of_the_unread(first, session.events.as_ref());
    }
    for beside in builds.iter().take(1).flat_map(|b| b.companions.values()).filter(|b| b.recipe.status.is_draft()) {
        session.events.warn(format!("{} is a draft: it was never built to the end here", beside.recipe.name));
    }
    if builds.len() > 1 && args.no_compiler_cache && !args.dry_run {
        session.events.warn("without a compiler cache, what does not know Python is compiled again for each".into());
    }
    let (mut said, mut reports) = (Vec::new(), Vec::new());
    for build in &builds {
        if args.dry_run {
            let plan = stage::plan(build)?;
            if args.recipe.json {
                said.push(serde_json::json!({ "schema_version": 1, "recipe": build.recipe.name, "draft": is_draft(build), "python": build.python.version, "plan": plan }));
            } else {
                show_plan(build, &plan);
            }
            continue;
        }
        let (outcome, seconds) = build_one(build, secret.as_ref(), session.events.as_ref())?;
        if let (Some(_), Outcome::Done(artifacts)) = (&args.report, &outcome) {
            reports.push(report(build, artifacts, seconds)?);
        }
        if args.recipe.json {
            let (judging, judged) = crate::store::judging_spent();
            said.push(serde_json::json!({
                "schema_version": 1,
                "recipe": build.recipe.name,
                "draft": is_draft(build),
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
    }
    if let (Some(path), [_, ..]) = (&args.report, &reports[..]) {
        crate::store::write_atomically(path, reports.join("\n").as_bytes())?;
    }
    if args.recipe.json {
        // One Python is said as it ever was; several are a list.
        print_json(&match <[_; 1]>::try_from(said) {
            Ok([one]) => one,
            Err(several) => serde_json::json!({ "schema_version": 1, "recipe": recipe.name, "builds": several }),
        });
    }
    Ok(())
}

/// An error if the report would be written in a closed room, and go with it: of all that is outside the room has the
/// folder for the artifacts alone.
fn check_report(args: &Args, session: &Session) -> Result<()> {
    let Some(report) = &args.report else { return Ok(()) };
    let (file, out) = (std::path::absolute(report)?, std::path::absolute(&args.out)?);
    let is_kept = file.starts_with(&out) && !file.components().any(|part| part == Component::ParentDir);
    if is_kept || foreign::inside().is_some() || !foreign::is_foreign(&session.workspace, &args.recipe.recipe) {
        return Ok(());
    }
    let what = format!(
        "the recipe {} came from elsewhere, and is built in a closed room, which has no place for {}",
        args.recipe.recipe,
        report.display()
    );
    Err(Error::misuse("closed-room", what)
        .next(format!("put the report into the folder for the artifacts: --report {}/report.md", args.out.display())))
}

/// The Pythons that were asked for: one as it was named, several between commas, or all that the lock covers.
///
/// # Errors
/// Bad input: an empty name in the list, or `all` beside others.
fn pythons(asked: Option<&str>, recipe: &Recipe) -> Result<Vec<Option<String>>> {
    let Some(asked) = asked else { return Ok(vec![None]) };
    if asked == "all" {
        return Ok(recipe.python.versions.iter().cloned().map(Some).collect());
    }
    let one = |one: &str| {
        let wrong = match one.trim() {
            "" => "one of the names is empty",
            "all" => "all stands for every Python of the recipe, and stands alone",
            name => return Ok(Some(name.to_owned())),
        };
        Err(Error::misuse("python", format!("--python {asked}: {wrong}"))
            .next("such as --python 3.11, --python 3.11,3.13, or --python all"))
    };
    asked.split(',').map(one).collect()
}

/// Whether nothing is known of what comes out: the recipe was never built to the end on such a machine.
fn is_draft(build: &stage::Build<'_>) -> bool {
    build.recipe.torch.status.is_draft_on(&build.python.machine)
}

/// Warns of the variable by which other builds of PyTorch choose GPUs, where it asks for others than the recipe: it is not
/// read, and that would be found out after hours.
fn tell_of_the_unread(build: &stage::Build<'_>, events: &dyn Sink) {
    const VARIABLE: &str = "TORCH_CUDA_ARCH_LIST";
    let (Some(cuda), Ok(asked)) = (&build.recipe.cuda, std::env::var(VARIABLE)) else { return };
    let ours = cuda.architectures.join(";");
    if !asked.is_empty() && asked != ours {
        events.warn(format!(
            "{VARIABLE} is '{asked}' here, and is not read: {} compiles for {ours} (cuda.architectures)",
            build.recipe.name
        ));
    }
}

/// Warns of what the recipe was never built with: its results are of other machines or compilers.
fn tell_of_the_untried(build: &stage::Build<'_>, events: &dyn Sink) {
    let (recipe, compiler) = (&build.recipe, &build.compiler);
    if is_draft(build) && !recipe.torch.status.is_draft() {
        let machine = &build.python.machine;
        events.warn(format!("{} was built here, and never on {machine}: it may stop anywhere", recipe.name));
    }
    let family = compiler.family.name();
    if recipe.toolchain.is_untried(family, &compiler.version) {
        events.warn(format!(
            "{} is {family} {}; {} was built to the end with {}: with another compiler it may stop anywhere",
            compiler.cxx.display(),
            compiler.version,
            recipe.name,
            recipe.toolchain.tried.join(", ")
        ));
    }
}

/// Runs one build to its end, and signs what came out. Seconds of wall time with it.
fn build_one(build: &stage::Build<'_>, secret: Option<&SigningKey>, events: &dyn Sink) -> Result<(Outcome, f64)> {
    let started = Instant::now();
    let outcome = stage::run(build)?;
    let seconds = started.elapsed().as_secs_f64();
    if let (Some(secret), Outcome::Done(artifacts)) = (secret, &outcome) {
        let statements = std::iter::once(&artifacts.statement).chain(artifacts.set.iter().flat_map(|s| &s.statements));
        for statement in statements {
            let (envelope, id) = super::sign::sign(statement, secret)?;
            events.note(format!("{} signed by the key {id}", envelope.display()));
        }
    }
    Ok((outcome, seconds))
}

fn show_plan(build: &stage::Build<'_>, plan: &Plan) {
    println!(
        "{}{} {} for Python {} with {}",
        build.recipe.name,
        if is_draft(build) { " (a draft)" } else { "" },
        build.recipe.torch.full_version(),
        build.python.version,
        build.compiler.banner
    );
    let wide = plan.stages.iter().map(|s| s.stage.len() + 1 + s.name.len()).max().unwrap_or_default();
    for stage in &plan.stages {
        show_stage(stage, wide);
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

fn show_stage(planned: &PlannedStage, wide: usize) {
    let name = format!("{} {}", planned.stage, planned.name);
    let state = match planned.state {
        State::Done => "in store",
        State::NotNeeded => "not needed",
        State::ToDo => "to do",
        State::NotOfThisBuild => "not in this recipe",
    };
    let key = planned.key.as_deref().filter(|_| planned.state != State::NotOfThisBuild).map_or("", |key| &key[..20]);
    println!("  {:wide$} {state:10} {key}", name.trim_end());
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
    if let Some(set) = &artifacts.set {
        let _ = writeln!(t, "\n## The set\n\n| check | wall time | what it printed |\n|---|---|---|");
        for check in &set.checks {
            let _ = writeln!(t, "| {} | {} | `{}` |", check.name, ui::duration(check.seconds), check.said);
        }
        for (package, lacks) in &set.lacks {
            for (what, why) in lacks {
                let _ = writeln!(t, "\n{package} lacks what stock has: {what} ({why}).");
            }
        }
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
    if let Some(from) = &artifacts.objects {
        println!(
            "  {} of {} objects came from elsewhere, {} of them were compiled again; {} answers for them",
            from.elsewhere(),
            from.objects,
            from.audited,
            from.writer
        );
    }
    let Some(set) = &artifacts.set else {
        println!("\n  python -m pip install {}", artifacts.wheel.display());
        return;
    };
    for check in &set.checks {
        println!("  ✓ {}", check.name);
    }
    for (package, lacks) in &set.lacks {
        for (what, why) in lacks {
            println!("  - {package} lacks what stock has: {what} ({why})");
        }
    }
    let folder = set.requirements.parent().unwrap_or_else(|| std::path::Path::new("."));
    println!("\n  python -m pip install --find-links {} -r {}", folder.display(), set.requirements.display());
}
