//! Trying it: importing torch, two ranks that meet, a store, torchrun's store, in one go under a time limit. Both ranks
//! are started at once, so torch is imported but once of wall time.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Interpreter;
use crate::error::{Error, Kind, Result};
use crate::toolchain::Process;

/// How long all of it may take: importing torch alone can take many seconds on a cold disk.
const LIMIT: Duration = Duration::from_secs(90);

const SCRIPT: &str = include_str!("trial.py");

/// One trial and how it ended.
#[derive(Debug, Clone, Serialize)]
pub struct Trial {
    /// The step, for code that asks for one of them.
    pub step: Step,
    /// What was tried, in words for people.
    pub name: &'static str,
    /// Whether it worked.
    pub ok: bool,
    /// Whether the store ran on libuv, where it worked.
    pub libuv: Option<bool>,
    /// The error's last line, where it did not.
    pub error: Option<String>,
    /// Wall time in seconds.
    pub seconds: f64,
}

/// What is tried, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// `import torch`.
    Import,
    /// `init_process_group()`.
    Init,
    /// `TCPStore(…)`.
    Store,
    /// torchrun's agent.
    Agent,
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Self::Import => "import torch",
            Self::Init => "init_process_group() with two Gloo ranks",
            Self::Store => "a TCPStore with default arguments",
            Self::Agent => "torchrun's own store, made as its agent makes it",
        }
    }

    fn after(self) -> Option<Self> {
        match self {
            Self::Import => Some(Self::Init),
            Self::Init => Some(Self::Store),
            Self::Store => Some(Self::Agent),
            Self::Agent => None,
        }
    }
}

/// What torch says of itself once it is imported.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Imported {
    /// `torch.distributed.is_available()`.
    pub distributed: bool,
    /// `torch.cuda.device_count()`.
    pub devices: u32,
}

/// What was tried, and what torch said.
#[derive(Debug, Clone, Default)]
pub struct Trials {
    /// Every trial, in the order that they ran.
    pub all: Vec<Trial>,
    /// Where the import worked.
    pub imported: Option<Imported>,
    /// The whole of what was printed where it did not.
    pub said: String,
}

/// One line of the script.
#[derive(Debug, Deserialize)]
struct Report {
    step: Step,
    ok: bool,
    libuv: Option<bool>,
    error: Option<String>,
    seconds: f64,
    #[serde(flatten)]
    imported: Option<Imported>,
}

/// Runs all trials with what `python` would import, in the user's own environment.
///
/// # Errors
/// If the Python cannot be started, or somebody asked to stop.
pub fn all(python: &Interpreter) -> Result<Trials> {
    // The job's own rank must not leak into the trial; all else is the user's environment.
    let own = ["RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"];
    let environment = std::env::vars_os()
        .filter(|(n, _)| !own.iter().any(|o| n == o) && !n.to_string_lossy().starts_with("TORCHELASTIC_"));
    let process = Process::new(&python.executable)
        .args(["-c", SCRIPT])
        .envs(environment)
        .env("DOCTOR_SCRIPT", SCRIPT)
        // As the user would start it: GLOO_SOCKET_IFNAME may name an interface that a sandbox has not.
        .with_network()
        .timeout(LIMIT);
    let mut trials = Trials::default();
    let ended = process.run(None, &mut |line| trials.take(line));
    let next = trials.all.last().map_or(Some(Step::Import), |t| t.step.after());
    match ended {
        Ok(output) => {
            trials.said = output.text;
            // A crash in compiled code says nothing in Python.
            if !output.status.success() && trials.all.iter().all(|t| t.ok) {
                let error = format!("{} ({})", last_error(&trials.said), output.status);
                trials.all.extend(next.map(|step| Trial::failed(step, error)));
            }
        }
        Err(e) if e.kind() == Some(Kind::Timeout) => {
            let error = format!("it did not end within {} s", LIMIT.as_secs());
            trials.all.extend(next.map(|step| Trial::failed(step, error)));
        }
        Err(e) if e.kind() == Some(Kind::Cancelled) => return Err(e),
        Err(e) => return Err(Error::world("trial", format!("cannot try this Python: {e}"))),
    }
    Ok(trials)
}

impl Trial {
    fn failed(step: Step, error: String) -> Self {
        Self { step, name: step.name(), ok: false, libuv: None, error: Some(error), seconds: 0.0 }
    }
}

impl Trials {
    fn take(&mut self, line: &str) {
        let Ok(report) = serde_json::from_str::<Report>(line.trim()) else { return };
        let Report { step, ok, libuv, error, seconds, imported } = report;
        if step == Step::Import {
            self.imported = imported.filter(|_| ok);
        }
        self.all.push(Trial { step, name: step.name(), ok, libuv: libuv.filter(|_| ok), error, seconds });
    }

    /// How a step ended; `None` where it was not tried.
    pub fn of(&self, step: Step) -> Option<&Trial> {
        self.all.iter().find(|t| t.step == step)
    }
}

/// The line that a Python traceback ends with.
fn last_error(text: &str) -> String {
    let is_error = |l: &&str| l.split(':').next().is_some_and(|n| n.ends_with("Error") || n.ends_with("Exception"));
    let line = text.lines().rev().find(is_error).or_else(|| text.lines().last());
    line.unwrap_or("it ended without a word").trim().to_owned()
}
