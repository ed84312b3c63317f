//! `validate`: a candidate held against a baseline.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::common::{RecipeArgs, ToolArgs, print_json};
use crate::error::{Answer, Error, Result};
use crate::stage::Options;
use crate::ui;
use crate::validate::{self, Effort, Report, report};

/// Hold a build against another one: all-reduce, store, operators, scenarios
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  cargo xtask validate --candidate A --baseline pypi:torch==2.12.1
  cargo xtask validate --candidate libtorch.tar.gz --baseline ~/libtorch --quick
  cargo xtask validate --candidate A --baseline B --html report.html
  cargo xtask validate --candidate A --baseline B --backend nccl --ranks 8
  cargo xtask validate -r torch-2.12.1-cu130 --gpu --candidate A --baseline B
  cargo xtask validate --from raw.json --html report.html

The benchmark (tests/allreduce) is built against each with the tch that fits,
and both run in turns. With several GPUs NCCL is measured over all of them, with
one NCCL alone and Gloo with CUDA tensors, without one Gloo on the CPU. The bars
stand in the recipe's [validation].
Exit code: 0 every bar is met, 1 one is missed.")]
pub struct Args {
    #[command(flatten)]
    recipe: RecipeArgs,
    #[command(flatten)]
    python: ToolArgs,
    /// The build that is judged: a wheel, a libtorch archive, a folder, or pypi:torch==VERSION
    #[arg(long, value_name = "BUILD", required_unless_present = "from", value_hint = clap::ValueHint::AnyPath)]
    candidate: Option<String>,
    /// The build that it is held against
    #[arg(long, value_name = "BUILD", required_unless_present = "from", value_hint = clap::ValueHint::AnyPath)]
    baseline: Option<String>,
    /// Measure nothing: judge again what an earlier run wrote with --raw, by this recipe's bars
    #[arg(long, value_name = "FILE", conflicts_with_all = ["candidate", "baseline"])]
    from: Option<PathBuf>,
    /// A look: a few minutes, wide intervals
    #[arg(long)]
    quick: bool,
    /// Only one part
    #[arg(long, value_name = "PART", value_parser = ["benchmark", "scenarios"])]
    only: Option<String>,
    /// Rounds of candidate and baseline in turns
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: Option<u16>,
    /// Largest tensor of the all-reduce, bytes
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(8..=1 << 40))]
    max_bytes: Option<u64>,
    /// Numbers of store clients
    #[arg(long, value_name = "N,N", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    clients: Vec<u32>,
    /// What carries the all-reduce (default: by the hardware)
    #[arg(long, value_name = "NAME", value_parser = ["gloo", "nccl"])]
    backend: Option<String>,
    /// Where its tensors are (default: by the hardware)
    #[arg(long, value_name = "NAME", value_parser = ["cpu", "cuda"])]
    device: Option<String>,
    /// Ranks on this machine (default: by the hardware)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    ranks: Option<u32>,
    /// Fail unless this machine has a GPU and the candidate has CUDA (without this they are used where they are)
    #[arg(long, conflicts_with = "from")]
    gpu: bool,
    /// Write the report as one HTML page
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write the report as Markdown, for a CI summary
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Write everything that was measured as JSON
    #[arg(long, value_name = "FILE")]
    raw: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// Bad input in arguments, recipe or lock; measurements that cannot be read; a benchmark that fails on the candidate.
/// The world: a report cannot be written.
pub fn run(args: Args) -> Result<Answer> {
    let session = args.recipe.session()?;
    let measured = match (&args.from, &args.candidate, &args.baseline) {
        (None, Some(candidate), Some(baseline)) => {
            let build = session.build(&args.recipe, &args.python, Options::default())?;
            validate::run(&build, candidate, baseline, effort(&args), args.only.as_deref())?
        }
        (Some(file), ..) => validate::read(file)?,
        _ => return Err(Error::misuse("arguments", "name --candidate and --baseline")),
    };
    let report = Report::of(measured, &session.recipe(&args.recipe)?.validation);
    let json = serde_json::to_value(&report).map_err(|e| Error::world("json", e.to_string()))?;
    let files: [(&Option<PathBuf>, &dyn Fn() -> String); 3] = [
        (&args.html, &|| report::page(&report)),
        (&args.markdown, &|| report::summary(&report)),
        (&args.raw, &|| format!("{json:#}\n")),
    ];
    for (path, text) in files {
        if let Some(path) = path {
            crate::store::write_atomically(path, text().as_bytes())?;
            session.events.note(format!("wrote {}", path.display()));
        }
    }
    if args.recipe.json {
        print_json(&json);
    } else {
        show(&report);
    }
    if report.passed {
        return Ok(Answer::Yes);
    }
    let missed: Vec<&str> = report.verdicts.iter().filter(|v| v.passed == Some(false)).map(|v| v.criterion).collect();
    Ok(Answer::no("bar-missed", format!("the candidate misses: {}", missed.join(", ")))
        .next("the report says by how much, cell by cell (--html, --markdown)"))
}

/// How much to measure.
fn effort(args: &Args) -> Effort {
    let base = if args.quick { Effort::quick() } else { Effort::full() };
    Effort {
        rounds: args.rounds.map_or(base.rounds, usize::from),
        max_bytes: args.max_bytes.unwrap_or(base.max_bytes),
        clients: if args.clients.is_empty() { base.clients } else { args.clients.clone() },
        backend: args.backend.clone(),
        device: args.device.clone(),
        ranks: args.ranks,
        gpu: args.gpu,
        ..base
    }
}

fn show(report: &Report) {
    // What was measured may be told by a file of others, and a version by the torch that was measured.
    let build = |role: &str, f: &validate::Facts| {
        println!("{role}  {} ({})", ui::visible(&f.version), ui::visible(&f.name));
    };
    build("candidate", &report.measured.candidate);
    build("baseline ", &report.measured.baseline);
    for v in &report.verdicts {
        let measured = v.value.map_or(String::new(), |i| {
            let bound = if v.better == validate::Better::Higher { "at least" } else { "at most" };
            format!(": {:.2} ({:.2} to {:.2}), {bound} {:.2} wanted", i.value, i.low, i.high, v.threshold)
        });
        println!("{} {}{measured}", ui::mark(v.passed), ui::visible(&v.what));
        for note in v.all_notes() {
            println!("    {}", ui::visible(note));
        }
    }
}
