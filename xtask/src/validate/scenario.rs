//! Scripts that people's jobs are shaped like, run with the Python of candidate and baseline,
//! nothing set that chooses a store.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::bench;
use super::machine::{self, Machine};
use super::subject::Subject;
use crate::error::{Kind, Result};
use crate::platform::scratch::Scratch;
use crate::stage::Build;
use crate::toolchain::Process;

/// A program that is run on both builds.
pub struct Scenario {
    /// Its name in reports.
    pub name: &'static str,
    /// What it shows when it passes, in a sentence.
    pub what: &'static str,
    /// File in `tests/scenarios`.
    script: &'static str,
    text: &'static str,
    /// Arguments of Python before the script.
    launcher: &'static [&'static str],
    /// What it needs beside a Python with the build.
    needs: Need,
}

/// What a scenario cannot run without.
enum Need {
    Nothing,
    /// A package of its Python.
    Package(&'static str),
    /// A GPU, and a build with CUDA.
    Gpu,
}

/// The scenario whose figures stand in reports.
const GPU: &str = "gpu";

const TORCHRUN_4: &[&str] = &["-m", "torch.distributed.run", "--nproc-per-node", "4", "--master-port", "29541"];
const ELASTIC: &[&str] =
    &["-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "2", "--master-port", "29542"];

/// All of them, in the order that they run.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "s2_train",
        what: "mp.spawn, DistributedDataParallel, a checkpoint",
        script: "s2_train.py",
        text: include_str!("../../../tests/scenarios/s2_train.py"),
        launcher: &[],
        needs: Need::Nothing,
    },
    Scenario {
        name: "s1_train",
        what: "Lightning Trainer with DDPStrategy",
        script: "s1_train.py",
        text: include_str!("../../../tests/scenarios/s1_train.py"),
        launcher: &[],
        needs: Need::Package("lightning"),
    },
    Scenario {
        name: "torchrun",
        what: "torchrun with 4 processes",
        script: "rendezvous.py",
        text: include_str!("../../../tests/scenarios/rendezvous.py"),
        launcher: TORCHRUN_4,
        needs: Need::Nothing,
    },
    Scenario {
        name: "elastic",
        what: "torchrun starts all ranks again after one was killed",
        script: "elastic.py",
        text: include_str!("../../../tests/scenarios/elastic.py"),
        launcher: ELASTIC,
        needs: Need::Nothing,
    },
    Scenario {
        name: "many_ranks",
        what: "many ranks on Gloo",
        script: "many_ranks.py",
        text: include_str!("../../../tests/scenarios/many_ranks.py"),
        launcher: &[],
        needs: Need::Nothing,
    },
    Scenario {
        name: GPU,
        what: "CUDA's libraries, every kernel of attention, bfloat16 training, the profiler, NCCL",
        script: "gpu.py",
        text: include_str!("../../../tests/scenarios/gpu.py"),
        launcher: &[],
        needs: Need::Gpu,
    },
];

/// How one run ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It ran.
    Passed {
        /// Wall time in seconds.
        seconds: f64,
        /// Whether its store ran on libuv.
        libuv: bool,
        /// What it printed.
        said: serde_json::Value,
    },
    /// It ran and failed.
    Failed {
        /// Wall time in seconds.
        seconds: f64,
        /// The line that says why.
        why: String,
    },
    /// It could not be run on this build.
    NotAvailable {
        /// What this build lacks for it.
        why: String,
    },
}

/// One scenario on both builds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Pair {
    /// The scenario's name, as its script is called.
    pub name: String,
    /// What it shows when it passes, in a sentence.
    pub what: String,
    /// On the candidate.
    pub candidate: Outcome,
    /// On the baseline.
    pub baseline: Outcome,
}

impl Outcome {
    /// What it found that this build or card does not have, and so did not try.
    pub fn lacks(&self) -> BTreeSet<&str> {
        let Self::Passed { said, .. } = self else { return BTreeSet::new() };
        said["lacks"].as_array().into_iter().flatten().filter_map(serde_json::Value::as_str).collect()
    }
}

impl Pair {
    /// What its lines of JSON say, by key: candidate's and baseline's, `-` where one says nothing. Of the scenario that
    /// measures a GPU alone; the others' is what their tests look at.
    pub fn figures(&self) -> BTreeMap<String, [String; 2]> {
        let mut figures = BTreeMap::new();
        if self.name != GPU {
            return figures;
        }
        for (at, outcome) in [&self.candidate, &self.baseline].into_iter().enumerate() {
            let Outcome::Passed { said: serde_json::Value::Object(said), .. } = outcome else { continue };
            for (key, value) in said.iter().filter(|(key, _)| *key != "scenario") {
                let rows = match value {
                    serde_json::Value::Object(inner) => {
                        inner.iter().map(|(name, value)| (format!("{key}, {name}"), shown(value))).collect()
                    }
                    value => vec![(key.clone(), shown(value))],
                };
                for (name, text) in rows {
                    figures.entry(name).or_insert_with(|| ["-".to_owned(), "-".to_owned()])[at] = text;
                }
            }
        }
        figures
    }
}

fn shown(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => text.clone(),
        serde_json::Value::Array(all) => all.iter().map(shown).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

/// Runs all scenarios on both builds, in turns.
///
/// # Errors
/// The world: a scenario cannot be written or started. Or somebody asked to stop. That one fails is no error.
pub fn run(build: &Build<'_>, subjects: &[Subject; 2], machine: &Machine, many: u32) -> Result<Vec<Pair>> {
    let folder = Scratch::new()?;
    for scenario in SCENARIOS {
        fs_err::write(folder.path().join(scenario.script), scenario.text)?;
    }
    let mut pairs = Vec::new();
    for scenario in SCENARIOS {
        let one = |subject| -> Result<Outcome> {
            let outcome = run_one(scenario, subject, machine, folder.path(), many)?;
            let how = match &outcome {
                Outcome::Passed { .. } => "passed".to_owned(),
                Outcome::Failed { why, .. } | Outcome::NotAvailable { why } => why.clone(),
            };
            build.events.note(format!("{} on {}: {how}", scenario.name, subject.name));
            Ok(outcome)
        };
        let (candidate, baseline) = (one(&subjects[0])?, one(&subjects[1])?);
        pairs.push(Pair { name: scenario.name.into(), what: scenario.what.into(), candidate, baseline });
    }
    Ok(pairs)
}

fn run_one(scenario: &Scenario, subject: &Subject, machine: &Machine, folder: &Path, many: u32) -> Result<Outcome> {
    let not_available = |why: String| Ok(Outcome::NotAvailable { why });
    let Some(python) = &subject.python else {
        return not_available("a libtorch bundle has no Python".into());
    };
    let mut base = Process::new(python)
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", folder)
        .env("LC_ALL", "C.UTF-8")
        .envs(bench::of_machine())
        .env("OMP_NUM_THREADS", "1")
        .envs(subject.python_path.iter().map(|p| ("PYTHONPATH", p)))
        .cwd(folder)
        .timeout(Duration::from_secs(300));
    if machine.has_gpu() && subject.facts.cuda.is_some() {
        // NCCL wants to see the machine's own interfaces.
        base = base.envs(machine::driver_libraries().map(|folder| ("LD_LIBRARY_PATH", folder))).with_network();
    }
    match scenario.needs {
        Need::Package(package) => {
            let found = base.clone().args(["-c", &format!("import {package}")]).run(None, &mut |_| {})?;
            if !found.status.success() {
                return not_available(format!("its Python has no {package}"));
            }
        }
        Need::Gpu if subject.facts.cuda.is_none() => return not_available("this build has no CUDA".into()),
        Need::Gpu if !machine.has_gpu() => return not_available("this machine has no GPU".into()),
        Need::Gpu | Need::Nothing => {}
    }
    let mut args: Vec<OsString> = scenario.launcher.iter().map(Into::into).collect();
    args.push(folder.join(scenario.script).into());
    if scenario.name == "many_ranks" {
        args.push(many.to_string().into());
    }
    let process = base.args(args);
    let output = match process.run(None, &mut |_| {}) {
        Ok(output) => output,
        Err(e) if e.kind() == Some(Kind::Timeout) => {
            return Ok(Outcome::Failed { seconds: 300.0, why: "it did not end within 300 s".into() });
        }
        Err(e) => return Err(e),
    };
    let seconds = output.elapsed.as_secs_f64();
    if !output.status.success() {
        return Ok(Outcome::Failed { seconds, why: reason(&output.text) });
    }
    Ok(match output.last_json() {
        Some(said) => Outcome::Passed { seconds, libuv: said["libuv"] == true, said },
        None => Outcome::Failed { seconds, why: "it ended well but reported nothing".into() },
    })
}

/// The line of a traceback that says what happened.
fn reason(text: &str) -> String {
    let is_reason = |l: &&str| {
        l.split_once(": ").is_some_and(|(kind, _)| {
            let name = kind.rsplit(['.', ' ']).next().unwrap_or(kind);
            name.ends_with("Error") || name.ends_with("Exception")
        })
    };
    // torchrun ends with an error of its own; the rank's stands before it.
    let known = text.lines().find(|l| l.contains("use_libuv was requested"));
    let line = known.or_else(|| text.lines().find(is_reason)).or_else(|| text.trim().lines().last());
    line.unwrap_or("it printed nothing").trim().chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_gpu_said_is_put_side_by_side_and_what_it_lacks_is_known() {
        let ran = |said| Outcome::Passed { seconds: 1.0, libuv: true, said };
        let pair = Pair {
            name: GPU.into(),
            what: String::new(),
            candidate: ran(
                serde_json::json!({"gpu": "card", "attention_ms": {"flash": 0.5}, "lacks": ["cudnn attention"]}),
            ),
            baseline: ran(serde_json::json!({"gpu": "card", "attention_ms": {"cudnn": 0.4}, "lacks": []})),
        };
        let figures = pair.figures();
        assert_eq!(figures["gpu"], ["card", "card"]);
        assert_eq!(figures["attention_ms, flash"], ["0.5", "-"]);
        assert_eq!(figures["attention_ms, cudnn"], ["-", "0.4"]);
        assert_eq!(pair.candidate.lacks(), BTreeSet::from(["cudnn attention"]));
        assert!(Pair { name: "s2_train".into(), ..pair }.figures().is_empty());
    }

    #[test]
    fn the_known_error_is_found_among_torchruns_own() {
        let text = "Traceback (most recent call last):\n  File \"x.py\"\nRuntimeError: use_libuv was requested but PyTorch was build without libuv support\ntorch.distributed.elastic.multiprocessing.errors.ChildFailedError: \n";
        assert!(reason(text).starts_with("RuntimeError: use_libuv was requested"));
        assert_eq!(
            reason("some\nAssertionError: the all-reduce is wrong\nlast"),
            "AssertionError: the all-reduce is wrong"
        );
        assert_eq!(reason("nothing known\nlast"), "last");
    }
}
