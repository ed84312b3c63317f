//! `validate`: a candidate build held against a baseline, by the benchmark of `tests/allreduce`
//! linked against each, by scenarios run in each one's Python, and by statistics on what came out.
//!
//! ```text
//! subject ─► bench ──► rounds (A B A B …) ─► compare ─► report
//!    └─────► scenario ──────────────────────────┘
//! ```

mod bench;
mod compare;
mod machine;
mod measured;
pub mod report;
mod scenario;
mod stats;
mod subject;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use serde::{Deserialize, Serialize};

pub use compare::{Better, Cell, Metric, Verdict};
pub use machine::Machine;
pub use measured::{Collective, Operators, Round, StoreRows};
pub use scenario::{Outcome, SCENARIOS};
pub use stats::Interval;
pub use subject::{Facts, Subject};

use crate::error::{Error, Result};
use crate::platform;
use crate::stage::Build;

/// How much is measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Effort {
    /// Rounds of candidate and baseline in turns.
    pub rounds: usize,
    /// Largest tensor of the all-reduce, bytes.
    pub max_bytes: u64,
    /// Factor from one size to the next.
    pub factor: u64,
    /// Measured seconds of one cell of the all-reduce.
    pub cell_seconds: f64,
    /// Numbers of store clients.
    pub clients: Vec<u32>,
    /// Store operations of each kind.
    pub operations: u32,
    /// Ranks of the scenario with many ranks.
    pub many_ranks: u32,
    /// What carries the all-reduce (`gloo`, `nccl`); by the hardware if `None`.
    pub backend: Option<String>,
    /// Where its tensors are (`cpu`, `cuda`); by the hardware if `None`.
    pub device: Option<String>,
    /// Ranks on this machine; by the hardware if `None`.
    pub ranks: Option<u32>,
    /// Whether it is an error if no GPU is measured.
    #[serde(default)]
    pub gpu: bool,
}

impl Effort {
    /// What a report that is shown to others is made of: about half an hour on two cores.
    pub fn full() -> Self {
        Self {
            rounds: 3,
            max_bytes: 1 << 30,
            factor: 8,
            cell_seconds: 0.4,
            clients: vec![64, 256, 1024, 4096],
            operations: 20_000,
            many_ranks: 64,
            backend: None,
            device: None,
            ranks: None,
            gpu: false,
        }
    }

    /// A look: a minute or two, wide intervals.
    pub fn quick() -> Self {
        Self {
            rounds: 2,
            max_bytes: 1 << 20,
            factor: 32,
            cell_seconds: 0.1,
            clients: vec![64, 256],
            operations: 4_000,
            many_ranks: 8,
            ..Self::full()
        }
    }
}

/// What was measured: all that a report is made of, so that it can be judged and written again.
#[derive(Debug, Serialize, Deserialize)]
pub struct Measured {
    /// Version of the JSON form.
    pub schema_version: u32,
    /// The day, `2026-01-31`.
    pub date: String,
    /// The build that is judged.
    pub candidate: Facts,
    /// The build that it is held against.
    pub baseline: Facts,
    /// The machine that all was measured on.
    pub machine: Machine,
    /// How much was measured.
    pub effort: Effort,
    /// The scripts that were run, on candidate and baseline.
    pub scenarios: Vec<scenario::Pair>,
    /// The commands, so that anyone can run them again.
    pub commands: Vec<String>,
    /// What a reader has to know beside the figures: what was left out, what was bypassed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// What the benchmark printed: `[candidate, baseline]` a round.
    pub raw: Vec<[Round; 2]>,
    /// Wall time of the whole run, seconds.
    pub seconds: f64,
}

/// Version of the JSON form.
const SCHEMA_VERSION: u32 = 1;

/// What was measured, and what it came to.
#[derive(Debug, Serialize)]
pub struct Report {
    /// What was measured.
    #[serde(flatten)]
    pub measured: Measured,
    /// Whether every bar was met.
    pub passed: bool,
    /// Whether the recipe's bar was met, a metric each.
    pub verdicts: Vec<Verdict>,
    /// Every figure of both, and their ratio.
    pub cells: Vec<Cell>,
}

impl Report {
    /// Judges what was measured, by the bars of a recipe's `[validation]`.
    pub fn of(measured: Measured, thresholds: &BTreeMap<String, f64>) -> Self {
        let cells = compare::cells(&measured.raw);
        let flags = [&measured.candidate, &measured.baseline].map(|facts| facts.cxx_flags.as_deref());
        let verdicts = compare::verdicts(thresholds, &measured.raw, &cells, &measured.scenarios, flags);
        Self { passed: verdicts.iter().all(|v| v.passed != Some(false)), measured, verdicts, cells }
    }

    /// What every bar came to, in one sentence.
    pub fn headline(&self) -> String {
        let missed = self.verdicts.iter().filter(|v| v.passed == Some(false)).count();
        let lacking: usize = self.verdicts.iter().map(|v| v.lacking.len()).sum();
        match (missed, lacking) {
            (0, 0) => "Every bar is met.".into(),
            (0, 1) => "Every bar is met, but by one operator whose kernel the candidate is built without.".into(),
            (0, n) => format!("Every bar is met, but by {n} operators whose kernels the candidate is built without."),
            (1, _) => format!("1 of {} bars is missed.", self.verdicts.len()),
            _ => format!("{missed} of {} bars are missed.", self.verdicts.len()),
        }
    }
}

/// Most bytes of what `--raw` wrote.
const MOST_MEASURED: u64 = 64 << 20;

/// Reads what an earlier run wrote with `--raw`.
///
/// # Errors
/// It is not there, or no such file.
pub fn read(path: &Path) -> Result<Measured> {
    let text = platform::read_text(path, MOST_MEASURED)
        .map_err(|e| Error::misuse("unreadable", format!("{} cannot be read: {e}", path.display())))?;
    let bad = |what: String| {
        Error::misuse("report", format!("{}: {what}", path.display())).next("name a file that `validate --raw` wrote")
    };
    let value: serde_json::Value = serde_json::from_str(&text).map_err(|e| bad(format!("this is no JSON: {e}")))?;
    match value["schema_version"].as_u64() {
        Some(v) if v > u64::from(SCHEMA_VERSION) => {
            return Err(bad(format!("its schema_version is {v}, this torchmill knows {SCHEMA_VERSION}")));
        }
        _ => {}
    }
    serde_json::from_value(value).map_err(|e| bad(format!("this is no measurement: {e}")))
}

/// Measures and compares.
///
/// # Errors
/// Bad input; no compiler; a benchmark that fails on the candidate. What the baseline cannot do is no
/// error: its cells say why.
pub fn run(build: &Build<'_>, candidate: &str, baseline: &str, effort: Effort, only: Option<&str>) -> Result<Measured> {
    let started = Instant::now();
    let machine = Machine::here();
    if effort.gpu && !machine.has_gpu() {
        return Err(Error::misuse("no-gpu", "--gpu was asked for, and this machine has no GPU that a driver shows")
            .next("`nvidia-smi` must list it; without --gpu everything is measured that needs none"));
    }
    let subjects = [subject::resolve(build, candidate)?, subject::resolve(build, baseline)?];
    if subjects[0].facts.sha256 == subjects[1].facts.sha256 {
        return Err(Error::misuse(
            "same-build",
            format!(
                "candidate '{candidate}' and baseline '{baseline}' are the same build (SHA-256 {})",
                subjects[0].facts.sha256
            ),
        )
        .next("name two different builds, such as --candidate dist/….whl --baseline pypi:torch==2.12.1"));
    }
    if effort.gpu && subjects[0].facts.cuda.is_none() {
        return Err(Error::misuse(
            "no-cuda",
            format!("--gpu was asked for, and {} is built without CUDA", subjects[0].name),
        )
        .next("name a build with CUDA as --candidate, such as that of the recipe torch-2.12.1-cu130"));
    }
    let wants = |part: &str| only.is_none_or(|o| o == part);
    let mut raw: Vec<[Round; 2]> = Vec::new();
    let mut commands = Vec::new();
    let mut notes = Vec::new();
    // Asked for by itself it has to run; beside the rest it is left out where no tch fits, and that is said.
    let unfit = if only.is_none() { subjects.iter().find_map(|s| bench::fitting_tch(build, s).err()) } else { None };
    if let Some(unfit) = unfit {
        let note = format!("The benchmark was left out: {}.", unfit.what());
        build.events.warn(note.clone());
        notes.push(note);
    } else if wants("benchmark") {
        let programs = [bench::build(build, &subjects[0])?, bench::build(build, &subjects[1])?];
        notes.extend(programs.iter().flat_map(bench::Program::notes));
        notes.dedup();
        let plan = bench::plan(&programs, &effort)?;
        commands.extend(plan.iter().map(bench::Command::shown));
        for round in 0..effort.rounds {
            build.events.note(format!("round {} of {}", round + 1, effort.rounds));
            let mut both = [Round::default(), Round::default()];
            for command in &plan {
                for (program, round) in programs.iter().zip(&mut both) {
                    bench::measure(build, program, command, round)?;
                }
            }
            raw.push(both);
        }
    }
    let scenarios =
        if wants("scenarios") { scenario::run(build, &subjects, &machine, effort.many_ranks)? } else { Vec::new() };
    let [candidate, baseline] = subjects.map(|s| s.facts);
    Ok(Measured {
        schema_version: SCHEMA_VERSION,
        date: crate::ui::today(),
        candidate,
        baseline,
        machine,
        effort,
        scenarios,
        commands,
        notes,
        raw,
        seconds: started.elapsed().as_secs_f64(),
    })
}
