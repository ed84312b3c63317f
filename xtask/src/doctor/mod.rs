//! Will this machine's torch start? Finds the torch that a Python would import, inspects it, tries a
//! store and a rendezvous in child processes, and knows the remedies.

mod companions;
mod explain;
mod remedy;
mod shell;
mod stock;
mod trial;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::compat::Broken;
use crate::error::{Context, Error, Result};
use crate::inspect::makers::{self, era};
use crate::inspect::{self, Depth, Outcome, Report};
use crate::platform;
use crate::recipe::{System, Workspace};
use crate::toolchain::{Process, cuda};

pub use explain::{Explanation, Line, Role, explain, is_noise};
pub use remedy::{Remedy, Start};
pub use trial::{Step, Trial};

use remedy::{Asker, Trouble, Unserved};
use trial::Trials;

/// How long a Python may take to say where its torch is; it imports nothing for that.
const ANSWER: Duration = Duration::from_millis(4500);

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
    /// Path of the interpreter, as it says itself.
    pub executable: PathBuf,
    /// Version of Python: `3.11.7`.
    pub version: String,
    /// `win32`, `linux`, `darwin`.
    pub platform: String,
    /// The machine, as `platform.machine()` says it: `x86_64`, `AMD64`, `arm64`.
    pub machine: String,
    /// Folder of the package `torch`, where there is one.
    pub torch: Option<PathBuf>,
    /// Whether it ignores its environment, as the embeddable Python of many installers does (a `._pth` file beside it).
    #[serde(default)]
    pub isolated: bool,
}

/// A GPU, as the driver's tool names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gpu {
    /// Model, as the driver calls it.
    pub name: String,
    /// Version of the driver: it decides which CUDA runs.
    pub driver: String,
    /// Memory, as the tool prints it.
    pub memory: String,
    /// Compute capability, such as `8.6`, where the tool knows it.
    pub compute_capability: Option<String>,
}

/// What was found out about a Python's torch: the document of `--json`.
#[derive(Debug, Clone, Serialize)]
pub struct Diagnosis {
    /// Version of the JSON form.
    pub schema_version: u32,
    /// The Python that was asked, and where its torch is.
    pub python: Interpreter,
    /// The torch, inspected; `None` where there is none.
    pub report: Option<Report>,
    /// Variables of the environment that matter.
    pub environment: BTreeMap<String, String>,
    /// What those that are set do, where that is worth saying.
    pub judged: Vec<String>,
    /// All GPUs that the driver's tool lists; empty where there is no such tool.
    pub gpus: Vec<Gpu>,
    /// How each usual launcher's start ends, by what the files of this torch say and USE_LIBUV.
    pub launchers: Vec<Launched>,
    /// What was tried, in order; empty where nothing was to be started.
    pub trials: Vec<Trial>,
    /// Whether starting works as things are.
    pub healthy: bool,
    /// The finding, in a sentence.
    pub finding: String,
    /// What helps, best first.
    pub remedies: Vec<Remedy>,
    /// Installed packages that would not fit the build that the remedies name; `None` where that cannot be told.
    pub breaks: Option<Vec<Broken>>,
}

/// A launcher, and how a start with it ends.
#[derive(Debug, Clone, Serialize)]
pub struct Launched {
    /// What people call it.
    pub launcher: &'static str,
    /// Whether it would start, and if not, with which error.
    pub outcome: Outcome,
    /// Where it was read which stores it makes.
    pub source: &'static str,
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
    // Of what lies in the current folder, where Python looks first, only a torch counts: all else would be run.
    const ASK: &str = "\
import sys
here = sys.path[:1] == ['']
if here:
    del sys.path[0]
import json, platform
from importlib.util import find_spec
version, machine = platform.python_version(), platform.machine()
if here:
    sys.path.insert(0, '')
spec = find_spec('torch')
place = spec and spec.submodule_search_locations and list(spec.submodule_search_locations)[0]
print(json.dumps(dict(executable=sys.executable, version=version, platform=sys.platform, machine=machine, torch=place, isolated=bool(sys.flags.isolated or sys.flags.ignore_environment))))";
    let asked = Process::new(&program).args(["-c", ASK]).envs(std::env::vars_os()).with_network().timeout(ANSWER);
    let no_answer = |why: &str| {
        Error::misuse("python", format!("{} does not answer like a Python 3: {why}", program.display()))
            .next("try it: it must run `python -c \"print(1)\"`; name another one with --python")
    };
    let out = match asked.run(None, &mut |_| {}) {
        Ok(out) => out,
        Err(e) if e.code() == "timeout" => {
            return Err(no_answer(
                "it said nothing within 4.5 s (something that runs when it starts hangs: a sitecustomize, a .pth file)",
            ));
        }
        Err(e) if e.code() == "cancelled" => return Err(e),
        Err(e) => return Err(Error::world("python", format!("cannot run {}: {}", program.display(), e.what()))),
    };
    let last = out.text.lines().last().unwrap_or("no message");
    out.last_json().and_then(|json| serde_json::from_value(json).ok()).ok_or_else(|| no_answer(last))
}

/// Examines `python`. With `dry`, nothing is started but Python itself. Recipes come from `workspace`, where there is one.
///
/// # Errors
/// If its torch cannot be read.
pub fn examine(python: Interpreter, dry: bool, workspace: Option<&Workspace>) -> Result<Diagnosis> {
    let report = python.torch.as_deref().map(inspect_torch).transpose()?;
    let environment: BTreeMap<String, String> =
        std::env::vars().filter(|(name, _)| VARIABLES.iter().any(|v| name.starts_with(v))).collect();
    let trials = match &report {
        Some(_) if !dry => trial::all(&python)?,
        _ => Trials::default(),
    };
    let gpus = gpus();
    let mut verdict = match &report {
        Some(report) => judge(report, &environment, &trials),
        None => Verdict::no_torch(),
    };
    // A Python of Windows that is started from WSL has Windows' driver as well.
    let driver_system = if python.platform == "win32" { System::Windows } else { cuda::driver_system() };
    let unserved = unserved(report.as_ref(), &python, driver_system, &gpus);
    if let Some(unserved) = &unserved {
        verdict.with(unserved, report.as_ref());
    }
    let remedies = match &report {
        None if unserved.is_none() => Vec::new(),
        Some(report) if verdict.healthy && report.libuv => Vec::new(),
        report => remedy::list(&Asker {
            report: report.as_ref(),
            python: &python,
            environment: &environment,
            gpus: &gpus,
            driver_system,
            workspace,
            init_fails: verdict.init_fails,
            torchrun_fails: verdict.torchrun_fails,
            trouble: verdict.trouble,
        }),
    };
    let (healthy, finding) = (verdict.healthy, verdict.finding);
    let judged = judge_variables(&environment, report.as_ref());
    let launchers = report.as_ref().map(|r| launchers(r, &environment)).unwrap_or_default();
    let build = remedies.iter().find_map(|r| r.build.as_ref());
    let breaks = companions::broken(python.torch.as_deref(), build);
    Ok(Diagnosis {
        schema_version: 1,
        python,
        report,
        environment,
        judged,
        gpus,
        launchers,
        trials: trials.all,
        healthy,
        finding,
        remedies,
        breaks,
    })
}

/// What USE_LIBUV asks of `init_process_group()`, where this version reads it.
fn asked_for(report: &Report, environment: &BTreeMap<String, String>) -> Option<bool> {
    let era = report.torch.version.as_deref().and_then(era)?;
    environment.get("USE_LIBUV").filter(|_| era.env.variable).map(|v| v == "1")
}

/// How `init_process_group()` ends, by what the files say and what is set.
fn predicted(report: &Report, environment: &BTreeMap<String, String>) -> Option<Outcome> {
    let default = report.defaults?.init_process_group;
    Some(asked_for(report, environment).map_or(default, |asks| Outcome::of(asks, report.libuv)))
}

/// How each launcher's start ends.
fn launchers(report: &Report, environment: &BTreeMap<String, String>) -> Vec<Launched> {
    let (Some(defaults), Some(own)) = (report.defaults, predicted(report, environment)) else { return Vec::new() };
    // 2.4's agent with the c10d backend leaves its workers to make their own store, which reads the variable.
    let shares = report.torch.version.as_deref().and_then(era).is_some_and(|e| e.shares.iter().any(|s| s == "c10d"));
    let c10d = if shares || asked_for(report, environment).is_none() { defaults.torchrun_c10d } else { own };
    let of = |l: &'static makers::Launcher| Launched {
        launcher: &l.name,
        outcome: match l.stores {
            makers::Stores::Static => defaults.torchrun,
            makers::Stores::C10d => c10d,
            makers::Stores::Env => own,
        },
        source: &l.source,
    };
    makers::table().launcher.iter().map(of).collect()
}

fn inspect_torch(folder: &Path) -> Result<Report> {
    let parent = folder.parent().unwrap_or(folder);
    inspect::inspect_folder(&folder.display().to_string(), parent, Depth::Verdict)
        .doing(|| format!("inspecting the torch in {}", folder.display()))
}

/// Whether starting works, and why not.
struct Verdict<'a> {
    healthy: bool,
    finding: String,
    init_fails: bool,
    torchrun_fails: bool,
    trouble: Trouble<'a>,
}

impl Verdict<'_> {
    fn no_torch() -> Self {
        let finding = "this Python has no torch: `python -m pip install torch`, with this very Python".into();
        Verdict { healthy: false, finding, init_fails: true, torchrun_fails: true, trouble: Trouble::Store }
    }
}

impl<'a> Verdict<'a> {
    /// Adds that the GPUs cannot be used. Where something else is wrong too, that goes first.
    fn with(&mut self, unserved: &'a Unserved, report: Option<&Report>) {
        let of = if report.is_some() { "it" } else { "PyPI's wheel" };
        self.finding = format!("{}; but {of} cannot use the GPU here: {}", self.finding, unserved.why);
        let all_else_works = self.healthy && report.is_some_and(|r| r.libuv);
        if all_else_works || report.is_none() {
            self.trouble = Trouble::Gpu(unserved);
        }
        self.healthy = false;
    }
}

/// Whether the installed torch can use none of the GPUs; where there is none, whether PyPI's could.
fn unserved(report: Option<&Report>, python: &Interpreter, driver_system: System, gpus: &[Gpu]) -> Option<Unserved> {
    let cuda = match report {
        Some(report) => report.torch.cuda.as_deref()?,
        // Its wheels for Windows and macOS have no CUDA.
        None if python.platform == "linux" => stock::CUDA,
        None => return None,
    };
    let minor: Vec<&str> = cuda.split('.').take(2).collect();
    remedy::unserved(&minor.join("."), driver_system, gpus).or_else(|| {
        let folder = python.torch.as_deref().filter(|_| !gpus.is_empty())?;
        remedy::without_code(&gpu_code(folder), gpus)
    })
}

/// The GPU code in the torch in `folder`: none where it cannot be read.
fn gpu_code(folder: &Path) -> BTreeMap<String, u64> {
    let libraries = ["libtorch_cuda.so", "torch_cuda.dll"].map(|name| folder.join("lib").join(name));
    libraries.iter().find_map(|path| inspect::file_gpu_code(path).ok()).unwrap_or_default()
}

/// Judges by what was tried; where nothing was, by what the files say.
fn judge<'a>(report: &Report, environment: &BTreeMap<String, String>, trials: &'a Trials) -> Verdict<'a> {
    let version = report.torch.version.as_deref().unwrap_or("of unknown version");
    let all_fails =
        |finding: String, trouble| Verdict { healthy: false, finding, init_fails: true, torchrun_fails: true, trouble };
    let because = |trial: &Trial| trial.error.clone().unwrap_or_else(|| "no message".into());
    if let Some(import) = trials.of(Step::Import).filter(|t| !t.ok) {
        let error = because(import);
        let said = import.error.as_deref().unwrap_or(&trials.said);
        return all_fails(format!("torch {version} cannot be imported: {error}"), Trouble::Import(said));
    }
    let tried = trials.imported.as_ref().map(|i| i.distributed);
    if tried == Some(false) || tried.is_none() && report.backends.distributed == Some(false) {
        let finding = format!("torch {version} has no torch.distributed: it was built with USE_DISTRIBUTED off");
        return all_fails(finding, Trouble::NoDistributed);
    }
    let init = trials.of(Step::Init);
    if report.gloo_is_dead() && init.is_none_or(|t| !t.ok) {
        let finding = format!(
            "torch {version}: its Gloo has no transport, so no process group with gloo can start; no setting of the store changes that"
        );
        return all_fails(finding, Trouble::GlooDead);
    }
    let predicted = predicted(report, environment);
    let torchrun_fails =
        trials.of(Step::Agent).map_or_else(|| remedy::torchrun_crashes(report), |t| !t.ok && is_the_known_error(t));
    let store = if report.libuv { "has the libuv store" } else { "has no libuv store" };
    let verdict = |healthy, init_fails, finding| Verdict {
        healthy,
        finding,
        init_fails,
        torchrun_fails,
        trouble: Trouble::Store,
    };
    let works = match init {
        Some(init) if !init.ok => {
            return verdict(
                false,
                true,
                format!("torch {version} {store}, and {} failed: {}", init.name, because(init)),
            );
        }
        Some(init) => {
            let on = if init.libuv == Some(true) { "libuv" } else { "the legacy store" };
            format!("init_process_group() works, on {on}")
        }
        None => match predicted {
            Some(Outcome::Crash) => {
                let finding = format!("torch {version} {store}, and asks for it: init_process_group() will crash");
                return verdict(false, true, finding);
            }
            Some(outcome) => format!("init_process_group() {}", outcome.text()),
            None => return verdict(report.libuv, !report.libuv, format!("torch {version} {store}")),
        },
    };
    if !torchrun_fails {
        return verdict(true, false, format!("torch {version} {store}; {works}"));
    }
    // Who has turned the default is told that it works: what is left is torchrun, which does not read it.
    let chosen = asked_for(report, environment) == Some(false);
    let by = if chosen { format!("{works}, as USE_LIBUV={} asks", environment["USE_LIBUV"]) } else { works };
    let but = "but torchrun will crash: its own stores ask for libuv, and read neither USE_LIBUV nor the URL";
    verdict(chosen, false, format!("torch {version} {store}; {by}; {but}"))
}

fn is_the_known_error(trial: &Trial) -> bool {
    trial.error.as_deref().is_some_and(|e| e.contains("use_libuv was requested"))
}

/// What the variables that are set do, where that is worth saying.
fn judge_variables(environment: &BTreeMap<String, String>, report: Option<&Report>) -> Vec<String> {
    let mut out = Vec::new();
    let reads = report.and_then(|r| r.torch.version.as_deref()).and_then(era).is_some_and(|e| e.env.variable);
    if let Some(value) = environment.get("USE_LIBUV") {
        out.push(match (value.as_str(), reads) {
            (_, false) => format!("USE_LIBUV={value} is not read by this torch"),
            ("1", true) => "USE_LIBUV=1 asks for the libuv store in init_process_group(); torchrun does not read it".into(),
            (other, true) => format!(
                "USE_LIBUV={other} turns libuv off in init_process_group(); torchrun's own stores and its workers' do not read it"
            ),
        });
    }
    if let Some(name) = environment.get("GLOO_SOCKET_IFNAME") {
        let there = |n: &str| !cfg!(target_os = "linux") || Path::new("/sys/class/net").join(n).exists();
        if name.contains('^') {
            out.push(format!("GLOO_SOCKET_IFNAME={name}: Gloo takes names as they are, without ^"));
        } else if let Some(missing) = name.split(',').find(|n| !there(n)) {
            out.push(format!("GLOO_SOCKET_IFNAME={name}: this machine has no interface {missing}"));
        }
    }
    if environment.get("TORCHELASTIC_USE_AGENT_STORE").is_some_and(|v| v == "True") {
        out.push("TORCHELASTIC_USE_AGENT_STORE=True: a process with it takes itself for a worker of an agent".into());
    }
    const FOUR: [&str; 4] = ["RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"];
    let missing: Vec<&str> = FOUR.into_iter().filter(|n| !environment.contains_key(*n)).collect();
    if !missing.is_empty() && missing.len() < FOUR.len() {
        out.push(format!("env:// reads all of {}; not set: {}", FOUR.join(", "), missing.join(", ")));
    }
    out
}

/// GPUs, from the driver's own tool; none is fine.
fn gpus() -> Vec<Gpu> {
    let Some(tool) = platform::which("nvidia-smi") else { return Vec::new() };
    let ask = |fields: &str| {
        let out =
            Command::new(&tool).args([&format!("--query-gpu={fields}"), "--format=csv,noheader"]).output().ok()?;
        out.status.success().then(|| String::from_utf8_lossy(&out.stdout).into_owned())
    };
    // Old drivers do not know the last field, and then say nothing of the others.
    let fields = "name,driver_version,memory.total";
    let Some(said) = ask(&format!("{fields},compute_cap")).or_else(|| ask(fields)) else { return Vec::new() };
    said.lines()
        .filter_map(|l| {
            let mut fields = l.split(", ").map(str::to_owned);
            Some(Gpu {
                name: fields.next()?,
                driver: fields.next()?,
                memory: fields.next()?,
                compute_capability: fields.next(),
            })
        })
        .collect()
}
