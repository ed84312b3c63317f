//! Will this machine's torch start? Finds the torch that a Python would import, inspects it, tries a
//! store and a rendezvous in child processes, and knows the remedies.

mod explain;
mod remedy;
mod trial;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};
use crate::inspect::{self, Depth, Outcome, Report};
use crate::platform;

pub use explain::{Explanation, explain};
pub use remedy::{Remedy, Start};
pub use trial::Trial;

/// Variables that decide how ranks find each other, by prefix.
const VARIABLES: &[&str] = &[
    "USE_LIBUV",
    "MASTER_",
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "TORCHELASTIC_",
    "NCCL_",
    "GLOO_",
    "TORCH_NCCL_",
    "TORCH_DISTRIBUTED_",
];

/// A Python and the torch that it would import.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Interpreter {
    /// The interpreter.
    pub executable: PathBuf,
    /// Its version.
    pub version: String,
    /// `win32`, `linux`, `darwin`.
    pub platform: String,
    /// Folder of the package `torch`, where there is one.
    pub torch: Option<PathBuf>,
}

/// A GPU, as the driver's tool names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gpu {
    /// Model.
    pub name: String,
    /// Driver version.
    pub driver: String,
    /// Memory, as the tool prints it.
    pub memory: String,
}

/// What was found.
#[derive(Debug, Clone, Serialize)]
pub struct Diagnosis {
    /// Version of the JSON form.
    pub schema_version: u32,
    /// The Python.
    pub python: Interpreter,
    /// The torch, inspected; `None` where there is none.
    pub report: Option<Report>,
    /// Variables of the environment that matter.
    pub environment: BTreeMap<String, String>,
    /// GPUs.
    pub gpus: Vec<Gpu>,
    /// What was tried.
    pub trials: Vec<Trial>,
    /// Whether starting works as things are.
    pub healthy: bool,
    /// The finding, in a sentence.
    pub finding: String,
    /// What helps, best first.
    pub remedies: Vec<Remedy>,
}

/// Finds the interpreter `wanted` (path or name; `python3` if `None`) and its torch, without
/// importing it.
///
/// # Errors
/// If there is no such Python, or it does not answer.
pub fn interpreter(wanted: Option<&str>) -> Result<Interpreter> {
    let names: Vec<&str> = wanted.map_or_else(|| vec!["python3", "python"], |w| vec![w]);
    let program = names.iter().find_map(|n| platform::which(n)).ok_or_else(|| {
        Error::misuse("no-python", format!("there is no {} on this machine", names[0]))
            .next("name one with --python: a path, or a name on PATH")
    })?;
    const ASK: &str = "\
import json, os, platform, sys
from importlib.util import find_spec
spec = find_spec('torch')
place = spec and spec.submodule_search_locations and list(spec.submodule_search_locations)[0]
print(json.dumps(dict(executable=sys.executable, version=platform.python_version(), platform=sys.platform, torch=place)))";
    let out = Command::new(&program)
        .args(["-c", ASK])
        .output()
        .map_err(|e| Error::world("python", format!("cannot run {}: {e}", program.display())))?;
    let text = String::from_utf8_lossy(&out.stdout);
    text.lines().last().and_then(|l| serde_json::from_str(l).ok()).ok_or_else(|| {
        let said = String::from_utf8_lossy(&out.stderr);
        let last = said.lines().last().unwrap_or("no message").to_owned();
        Error::misuse("python", format!("{} does not answer like a Python 3: {last}", program.display()))
    })
}

/// Examines `python`. With `dry`, nothing is started but Python itself.
///
/// # Errors
/// If its torch cannot be read.
pub fn examine(python: Interpreter, dry: bool) -> Result<Diagnosis> {
    let report = python.torch.as_deref().map(inspect_torch).transpose()?;
    let environment: BTreeMap<String, String> =
        std::env::vars().filter(|(name, _)| VARIABLES.iter().any(|v| name.starts_with(v))).collect();
    let trials = match &report {
        Some(_) if !dry => trial::all(&python)?,
        _ => Vec::new(),
    };
    let (healthy, finding) = judge(report.as_ref(), &environment, &trials);
    let remedies = match &report {
        Some(report) if !healthy || !report.libuv => remedy::list(report, &python, &environment),
        _ => Vec::new(),
    };
    Ok(Diagnosis { schema_version: 1, python, report, environment, gpus: gpus(), trials, healthy, finding, remedies })
}

fn inspect_torch(folder: &Path) -> Result<Report> {
    let parent = folder.parent().unwrap_or(folder);
    inspect::inspect_folder(&folder.display().to_string(), parent, Depth::Verdict)
        .doing(|| format!("inspecting the torch in {}", folder.display()))
}

/// Whether starting works, and why.
fn judge(report: Option<&Report>, environment: &BTreeMap<String, String>, trials: &[Trial]) -> (bool, String) {
    let Some(report) = report else { return (false, "this Python has no torch".into()) };
    let version = report.torch.version.as_deref().unwrap_or("of unknown version");
    let failed = trials.iter().find(|t| !t.ok);
    let chosen = environment.get("USE_LIBUV").map(|v| v == "1");
    let outcome = report.defaults.map(|d| match chosen {
        Some(true) if !report.libuv => Outcome::Crash,
        Some(false) => Outcome::Legacy,
        _ => d.init_process_group,
    });
    let torchrun_crashes = report.defaults.is_some_and(|d| d.torchrun == Outcome::Crash);
    let store = if report.libuv { "has the libuv store" } else { "has no libuv store" };
    match (outcome, failed) {
        (_, Some(trial)) => {
            let because = trial.error.as_deref().unwrap_or("no message");
            (false, format!("torch {version} {store}, and {} failed: {because}", trial.name))
        }
        (Some(Outcome::Crash), None) => {
            (false, format!("torch {version} {store}, and asks for it: init_process_group() will crash"))
        }
        (_, None) if torchrun_crashes => {
            (false, format!("torch {version} {store}: init_process_group() starts, but torchrun will crash"))
        }
        (Some(outcome), None) => (true, format!("torch {version} {store}; init_process_group() {}", outcome.text())),
        (None, None) => (report.libuv, format!("torch {version} {store}")),
    }
}

/// GPUs, from the driver's own tool; none is fine.
fn gpus() -> Vec<Gpu> {
    let Some(tool) = platform::which("nvidia-smi") else { return Vec::new() };
    let asked =
        Command::new(tool).args(["--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]).output();
    let Ok(out) = asked else { return Vec::new() };
    String::from_utf8_lossy(&out.stdout)
        .lines()
        .filter_map(|l| {
            let mut fields = l.split(", ").map(str::to_owned);
            Some(Gpu { name: fields.next()?, driver: fields.next()?, memory: fields.next()? })
        })
        .collect()
}
