//! What helps, for which start, at what cost, for the one who asks: the version, the system, CUDA or not, the Python,
//! the number of GPUs. What each version reads is in `inspect/makers.toml`, what the stock wheels are in `stock.toml`.

use std::collections::BTreeMap;
use std::str::FromStr;

use pep440_rs::{Version, VersionSpecifiers};
use serde::Serialize;

use super::{Gpu, Interpreter, explain, shell, stock};
use crate::compat::Proposal;
use crate::inspect::makers::{era, numbers};
use crate::inspect::{Outcome, Report};
use crate::recipe::cuda as releases;
use crate::recipe::{Cuda, Recipe, Status, System, Workspace};
use crate::stage::steps::cuda::brings_toolkit;

/// A way to start a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// `init_process_group()` in the script's own processes.
    InitProcessGroup,
    /// `torchrun`.
    Torchrun,
}

/// Something that helps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Remedy {
    /// What to do, in a few words.
    pub what: String,
    /// Lines to paste into a shell, in order; where Windows' two shells differ, one for each, which says whose it is.
    pub lines: Vec<String>,
    /// Which starts it helps.
    pub helps: Vec<Start>,
    /// What it costs: time, space, what it changes.
    pub costs: String,
    /// Of a recipe: whether it was built here, or is a draft.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<&'static str>,
    /// Of a build: what packages that are compiled against torch would meet in it.
    #[serde(skip)]
    pub build: Option<Proposal>,
}

/// Who asks, and what is wrong.
pub struct Asker<'a> {
    /// What inspecting the installed torch found; `None` where there is none.
    pub report: Option<&'a Report>,
    /// The Python that imports it.
    pub python: &'a Interpreter,
    /// The variables that matter.
    pub environment: &'a BTreeMap<String, String>,
    /// The GPUs of the machine, for builds with CUDA.
    pub gpus: &'a [Gpu],
    /// The system that their driver is of.
    pub driver_system: System,
    /// Where recipes are, if they are at hand.
    pub workspace: Option<&'a Workspace>,
    /// Whether `init_process_group()` fails.
    pub init_fails: bool,
    /// Whether torchrun fails.
    pub torchrun_fails: bool,
    /// Which trouble it is.
    pub trouble: Trouble<'a>,
}

/// Kinds of trouble, each with cures of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble<'a> {
    /// torch does not import; what it said.
    Import(&'a str),
    /// There is no `torch.distributed`.
    NoDistributed,
    /// Gloo has no transport.
    GlooDead,
    /// No libuv, or nothing.
    Store,
    /// CUDA that the GPUs, or their driver, are too old for.
    Gpu(&'a Unserved),
}

/// Why no GPU of a machine is served by a torch, or by a release of CUDA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unserved {
    /// What does not fit, in a sentence.
    pub why: String,
    /// The CUDA and the oldest driver that would do, where the driver is all that does not fit.
    pub newer_driver: Option<(String, &'static str)>,
}

/// Whether a torch for CUDA `cuda` (`13.0`) can use none of `gpus`, whose driver is of this system.
pub fn unserved(cuda: &str, driver_system: System, gpus: &[Gpu]) -> Option<Unserved> {
    let first = gpus.first()?;
    let last = |gpu: &Gpu| releases::last_before(cuda, gpu.compute_capability.as_deref()?);
    // Where all were dropped, the newest of the last releases serves one at least.
    let dropped: Option<Vec<&str>> = gpus.iter().map(last).collect();
    if let Some(last) = dropped.and_then(|all| all.into_iter().max_by_key(|last| numbers(last))) {
        let why = format!("CUDA {cuda} has no code for {}: {last} is the last that has", named(gpus));
        return Some(Unserved { why, newer_driver: None });
    }
    releases::newer_driver(cuda, driver_system, &first.driver).map(|oldest| Unserved {
        why: format!("the NVIDIA driver is {}, and CUDA {cuda} needs {oldest} or newer", first.driver),
        newer_driver: Some((cuda.to_owned(), oldest)),
    })
}

/// Whether of a torch's GPU code (`cubin sm_90`, `ptx compute_90`) nothing runs on any of `gpus`, though its CUDA would
/// compile for them: each wheel has code for some architectures only.
pub fn without_code(code: &BTreeMap<String, u64>, gpus: &[Gpu]) -> Option<Unserved> {
    let architecture = |image: &String| {
        let (kind, name) = image.split_once(' ')?;
        let number: u32 = name.rsplit('_').next()?.parse().ok()?;
        Some(format!("{}.{}{}", number / 10, number % 10, if kind == "ptx" { "+PTX" } else { "" }))
    };
    let mut of: Vec<String> = code.keys().filter_map(architecture).collect();
    of.sort_by_key(|architecture| numbers(architecture));
    let runs = |gpu: &Gpu| {
        let own = gpu.compute_capability.as_deref().map_or([0; 3], numbers);
        // What the driver's tool does not tell is not held against the torch.
        own[0] == 0 || of.iter().any(|architecture| runs_on(architecture, own))
    };
    if of.is_empty() || gpus.is_empty() || gpus.iter().any(runs) {
        return None;
    }
    let why = format!("its GPU code is for {}, and nothing of it runs on {}", of.join(", "), named(gpus));
    Some(Unserved { why, newer_driver: None })
}

/// Whether code for `architecture` (`9.0`, `9.0a`, `10.0f`, each perhaps with `+PTX`) runs on a GPU of compute
/// capability `own`: on those of the same major version from its minor one on, PTX on all that came after it too (CUDA
/// programming guide, "Binary Compatibility" and "PTX Compatibility"). What is compiled for one chip (`a`) runs on that
/// very one, what is for a family (`f`) on its members from that one on, and PTX of either nowhere else (the same,
/// "Feature Availability", with the table "Family-Specific Compatibility": a family is of one major version).
fn runs_on(architecture: &str, own: [u32; 3]) -> bool {
    let (plain, is_ptx) = architecture.strip_suffix("+PTX").map_or((architecture, false), |plain| (plain, true));
    let has = numbers(releases::capability(plain));
    let in_family = has[0] == own[0] && has[1] <= own[1];
    match plain.chars().next_back() {
        Some('a') => has == own,
        Some('f') => in_family,
        _ => in_family || is_ptx && has < own,
    }
}

/// GPUs by model and compute capability.
fn named(gpus: &[Gpu]) -> String {
    let one = |gpu: &Gpu| format!("{} ({})", gpu.name, gpu.compute_capability.as_deref().unwrap_or_default());
    gpus.iter().map(one).collect::<Vec<_>>().join(", ")
}

const BOTH: [Start; 2] = [Start::InitProcessGroup, Start::Torchrun];
const LEGACY: &str =
    "the legacy store: fine for a few ranks, slow to start for hundreds, and upstream keeps it for compatibility only";

fn remedy(what: impl Into<String>, lines: Vec<String>, helps: &[Start], costs: impl Into<String>) -> Remedy {
    Remedy { what: what.into(), lines, helps: helps.to_vec(), costs: costs.into(), state: None, build: None }
}

impl Asker<'_> {
    fn windows(&self) -> bool {
        self.python.platform == "win32"
    }

    fn version(&self) -> &str {
        self.report.and_then(|r| r.torch.version.as_deref()).unwrap_or("0")
    }

    /// `2.6.0` of `2.6.0+cpu`.
    fn release(&self) -> &str {
        self.version().split('+').next().unwrap_or_default()
    }

    fn has_cuda(&self) -> bool {
        self.report.is_some_and(|r| r.torch.cuda.is_some())
    }

    /// Whether it is a build for AMD's GPUs, which no recipe makes.
    fn has_hip(&self) -> bool {
        self.report.is_some_and(|r| r.torch.hip.is_some())
    }

    /// Whether the driver is all that is wrong: what needs a newer one too is no help.
    fn newer_driver_would_do(&self) -> bool {
        matches!(self.trouble, Trouble::Gpu(unserved) if unserved.newer_driver.is_some())
    }

    /// Whether a build without CUDA would take something away.
    fn wants_cuda(&self) -> bool {
        self.has_cuda() || !self.gpus.is_empty()
    }

    /// How a variable is set in the shells of this system.
    fn set(&self, variable: &str, value: &str) -> Vec<String> {
        if self.windows() { shell::lines(variable, value) } else { vec![format!("export {variable}={value}")] }
    }

    fn unset(&self, variable: &str) -> Vec<String> {
        if self.windows() { shell::lines(variable, "") } else { vec![format!("unset {variable}")] }
    }
}

/// The remedies that fit, best first.
pub fn list(asker: &Asker<'_>) -> Vec<Remedy> {
    match asker.trouble {
        Trouble::Import(said) => import(said),
        Trouble::NoDistributed => {
            vec![of_case("no-distributed", "a torch with torch.distributed", "another build of torch")]
        }
        Trouble::GlooDead => gloo(asker),
        Trouble::Store => store(asker),
        Trouble::Gpu(unserved) => {
            newer_driver(unserved).into_iter().chain(older_cuda(asker)).chain(recipes(asker)).collect()
        }
    }
}

fn newer_driver(unserved: &Unserved) -> Option<Remedy> {
    let (cuda, oldest) = unserved.newer_driver.as_ref()?;
    let what = format!("a newer NVIDIA driver: {oldest} or later, for CUDA {cuda}");
    Some(remedy(what, Vec::new(), &BOTH, "an installation, and a restart of the machine"))
}

/// Upstream's own wheel for an older CUDA, where that serves all GPUs.
fn older_cuda(asker: &Asker<'_>) -> Option<Remedy> {
    // For other machines those wheels have other code, and on Windows no libuv store.
    if asker.python.platform != "linux" || asker.python.machine != "x86_64" {
        return None;
    }
    stock::older().iter().find_map(|older| upstream(asker, older))
}

/// The one of `older` that is nearest to the torch that is there.
fn upstream(asker: &Asker<'_>, older: &stock::Older) -> Option<Remedy> {
    let [first, last] = &older.torch;
    let is_before = asker.report.is_some() && numbers(asker.version()) < numbers(first);
    let wheel = stock::wheel(asker.version())
        .filter(|w| older.has(&w.version))
        .or_else(|| stock::wheel(if is_before { first } else { last }))
        .filter(|w| w.is_for(&asker.python.version))?;
    let serves = |gpu: &Gpu| {
        let own = gpu.compute_capability.as_deref().map(numbers);
        own.is_some_and(|own| older.architectures.iter().any(|architecture| runs_on(architecture, own)))
    };
    let too_old = releases::newer_driver(&older.cuda, asker.driver_system, &asker.gpus.first()?.driver);
    if !asker.gpus.iter().all(serves) || too_old.is_some() && asker.newer_driver_would_do() {
        return None;
    }
    let oldest_driver = releases::oldest_driver(&older.cuda, asker.driver_system)?;
    let what = format!(
        "upstream's own wheel of {} for CUDA {}: it has code for GPUs {}, and needs driver {oldest_driver} or newer",
        wheel.version, older.cuda, older.gpus
    );
    let line = format!(
        "python -m pip install torch=={}+cu{} --index-url <the one that PyTorch's own page names for CUDA {}>",
        wheel.version,
        older.cuda.replace('.', ""),
        older.cuda
    );
    let major = releases::major(&older.cuda)?;
    let mut costs = format!(
        "a download; what is compiled against torch must be for CUDA {major} too; there is no such wheel after {last}"
    );
    if let Some(driver) = too_old {
        costs.push_str(&and_a_driver(driver));
    }
    Some(remedy(what, vec![line], &BOTH, costs))
}

/// What is added to the costs of what needs a newer driver.
fn and_a_driver(oldest: &str) -> String {
    format!("; and a newer NVIDIA driver ({oldest} or later)")
}

/// A torch that does not import: what is missing, and how it comes in. Nothing else helps.
fn import(said: &str) -> Vec<Remedy> {
    match explain(said.as_bytes()).into_iter().next() {
        Some(e) => {
            let lines = e.next.lines().map(str::to_owned).collect();
            vec![remedy(e.what, lines, &BOTH, "an installation")]
        }
        None => vec![remedy(
            "install this torch again, with all that it asks for; its own message says what is missing",
            vec![
                "python -m pip install --force-reinstall torch==<the same version>, from the index that it came from"
                    .into(),
            ],
            &BOTH,
            "a download",
        )],
    }
}

fn of_case(case: &str, what: &str, costs: &str) -> Remedy {
    remedy(what, explain::advised(case), &BOTH, costs)
}

/// A Gloo without a transport: no setting of the store helps.
fn gloo(asker: &Asker<'_>) -> Vec<Remedy> {
    let mut out = Vec::new();
    if asker.gpus.len() == 1 {
        out.push(without_launcher());
    }
    let wheels = stock::wheels();
    let own = numbers(asker.version());
    let fits =
        |w: &&stock::Wheel| w.windows_gloo && w.is_for(&asker.python.version) && numbers(&w.version) >= [2, 7, 0];
    let newer = wheels.iter().filter(fits).find(|w| numbers(&w.version) > own);
    let older = wheels.iter().rev().filter(fits).find(|w| numbers(&w.version) < own);
    for (wheel, how) in [(newer, "a later version"), (older, "an earlier version")] {
        if let Some(wheel) = wheel.filter(|_| asker.windows()) {
            let index = if asker.has_cuda() { ", from the index that yours came from: PyPI's has no CUDA" } else { "" };
            out.push(remedy(
                format!("{how} whose Gloo has a transport: {}{index}", wheel.version),
                vec![format!("python -m pip install torch=={}", wheel.version)],
                &[Start::InitProcessGroup],
                "another version of torch, with the torchvision and torchaudio that belong to it; torchrun still needs uvstore or a build with libuv",
            ));
        }
    }
    out.extend(recipes(asker));
    out
}

fn without_launcher() -> Remedy {
    remedy(
        "with one GPU: start without the launcher, the first line in place of `torchrun … train.py`, the second where \
         accelerate starts it; most scripts then make no process group at all",
        vec!["python train.py".into(), "accelerate launch --num_processes 1 --num_machines 1 train.py".into()],
        &[Start::Torchrun],
        "nothing",
    )
}

fn store(asker: &Asker<'_>) -> Vec<Remedy> {
    let mut out = Vec::new();
    if asker.report.is_some_and(|r| r.libuv) {
        return out;
    }
    out.extend(uvstore(asker));
    if asker.environment.get("USE_LIBUV").is_some_and(|v| v == "1") {
        let asks_anyway = era(asker.version()).is_some_and(|e| e.env.default_on(asker.windows()));
        let costs = if asks_anyway {
            "nothing; by itself it is not enough, since this version asks for libuv anyway"
        } else {
            "nothing"
        };
        out.push(remedy(
            "take USE_LIBUV=1 out of the environment: this build cannot do what it asks for",
            asker.unset("USE_LIBUV"),
            &[Start::InitProcessGroup],
            costs,
        ));
    }
    if asker.torchrun_fails && asker.gpus.len() == 1 {
        out.push(without_launcher());
    }
    out.extend(stock_wheel(asker));
    out.extend(recipes(asker));
    out.extend(legacy(asker));
    out.extend(before_libuv(asker));
    out
}

/// The libuv store as a program of its own.
fn uvstore(asker: &Asker<'_>) -> Option<Remedy> {
    if !["win32", "linux"].contains(&asker.python.platform.as_str()) || era(asker.version()).is_none() {
        return None;
    }
    let costs = if asker.python.isolated {
        "a small package. This Python reads what is beside it alone (a ._pth file, which needs the line `import site`): install uvstore into this very Python"
    } else {
        "a small package; no file of torch changes"
    };
    // It is in no index yet, and a name that nobody holds is not to be installed.
    let target = if asker.windows() { " --target windows   # on Linux, or in WSL" } else { "" };
    let lines = vec![format!("cargo xtask uvstore --wheel{target}"), "python -m pip install uvstore-….whl".into()];
    let what = "uvstore: a libuv store beside this torch, for whatever this Python starts; nothing has to be set";
    Some(remedy(what, lines, &BOTH, costs))
}

/// PyPI's own wheels for Linux and macOS have the libuv store.
fn stock_wheel(asker: &Asker<'_>) -> Option<Remedy> {
    let wheel = stock::wheel(asker.version()).filter(|w| w.is_for(&asker.python.version))?;
    if asker.windows() || asker.has_hip() || asker.has_cuda() {
        return None;
    }
    Some(remedy(
        format!("PyPI's own wheel of {}: on Linux and macOS it has the libuv store", wheel.version),
        vec!["python3 -m venv env".into(), format!("env/bin/python -m pip install torch=={}", wheel.version)],
        &BOTH,
        "an environment of its own beside the system's torch; on Linux the wheel brings CUDA's libraries, some GB",
    ))
}

/// Stays on the legacy store: only where the start reads what is set.
fn legacy(asker: &Asker<'_>) -> Vec<Remedy> {
    let mut out = Vec::new();
    let Some(era) = era(asker.version()) else { return out };
    let off = asker.environment.get("USE_LIBUV").is_some_and(|v| v != "1");
    if asker.init_fails && !off && era.env.url {
        out.push(remedy(
            "tell one call to use the legacy store",
            vec![
                "dist.init_process_group(backend, init_method=\"env://?use_libuv=False\", world_size=n, rank=r)".into(),
            ],
            &[Start::InitProcessGroup],
            LEGACY,
        ));
        out.push(remedy(
            "tell all calls of a process to use the legacy store",
            asker.set("USE_LIBUV", "0"),
            &[Start::InitProcessGroup],
            LEGACY,
        ));
    }
    if asker.torchrun_fails {
        let mut lines = vec!["torch.multiprocessing.spawn(main, args=(n,), nprocs=n)  # in the script".to_owned()];
        if era.env.default_on(asker.windows()) && !off {
            lines.push("and in main: init_process_group(…, init_method=\"env://?use_libuv=False\")".into());
        }
        out.push(remedy(
            "start the ranks without torchrun, whose own stores ask for libuv and listen to no variable",
            lines,
            &[Start::Torchrun],
            "no elastic restarts; and the legacy store's costs",
        ));
    }
    out
}

/// The last version before libuv became the default.
fn before_libuv(asker: &Asker<'_>) -> Option<Remedy> {
    const LAST: &str = "2.3.1";
    let fits = stock::wheel(LAST).is_some_and(|w| w.is_for(&asker.python.version));
    // PyPI's wheel for Windows is a build without CUDA: it would silently take the GPU away.
    let takes_the_gpu = asker.windows() && asker.wants_cuda();
    if !fits || takes_the_gpu || !(asker.init_fails || asker.torchrun_fails) || asker.has_hip() {
        return None;
    }
    let cuda = if asker.wants_cuda() { " (PyPI's wheel is for CUDA 12.1)" } else { "" };
    Some(remedy(
        format!("another version: {LAST}, the last one before libuv became the default{cuda}"),
        // Its wheels for Windows were compiled for NumPy 1 (pytorch#131668).
        vec![format!(
            "python -m pip install torch=={LAST} torchvision==0.18.1 torchaudio=={LAST}{}",
            if asker.windows() { " \"numpy<2\"" } else { "" }
        )],
        &BOTH,
        "everything that came after 2.3: newer GPUs, fixes, and models that need them",
    ))
}

/// Builds with libuv: of the same version if there is a recipe, else of another one, which is said.
fn recipes(asker: &Asker<'_>) -> Vec<Remedy> {
    let Some(workspace) = asker.workspace.filter(|_| !asker.has_hip()) else { return Vec::new() };
    let mut fits: Vec<Recipe> = workspace
        .recipe_names()
        .iter()
        .filter_map(|name| workspace.load(name).ok())
        .filter(|recipe| fits(asker, recipe))
        .filter(|recipe| !asker.newer_driver_would_do() || driver_for(asker, recipe).is_none())
        .collect();
    let same = |r: &Recipe| numbers(&r.torch.version) == numbers(asker.release());
    if fits.iter().any(same) {
        fits.retain(same);
    }
    // What the driver serves, first; of that the CUDA that packages here are compiled for; of that what was built; then
    // the nearest version. Who has none gets the newest.
    let near = asker.report.map_or("99.99.99", |_| asker.release());
    let distance = |r: &Recipe| {
        let (a, b) = (numbers(&r.torch.version), numbers(near));
        (a[0].abs_diff(b[0]), a[1].abs_diff(b[1]), a[2].abs_diff(b[2]))
    };
    fits.sort_by_key(|r| {
        let built = r.torch.status == Status::BuiltHere;
        (driver_for(asker, r).is_some(), other_cuda(asker, r), !built, distance(r), r.name.len())
    });
    fits.into_iter().take(2).map(|recipe| build(asker, &recipe)).collect()
}

fn build(asker: &Asker<'_>, recipe: &Recipe) -> Remedy {
    let same = numbers(&recipe.torch.version) == numbers(asker.release());
    let cuda = recipe.cuda.as_ref().map_or(String::new(), |c| format!(", CUDA {}", c.version));
    let (state, said) = match recipe.torch.status {
        Status::BuiltHere => ("built here", "this recipe was built here to the end"),
        Status::NotYetBuiltHere => ("draft", "this recipe is a draft: it was never built to its end"),
    };
    let what = if same {
        format!("a build of the same version that has libuv{cuda}: nothing in the scripts changes ({said})")
    } else if asker.report.is_none() {
        format!("a build that has libuv: torch {}{cuda} ({said})", recipe.torch.version)
    } else {
        format!(
            "a build that has libuv, of another version: {} in place of {}{cuda} ({said})",
            recipe.torch.version,
            asker.release()
        )
    };
    let minor = crate::toolchain::minor_of(&asker.python.version);
    let mut command = format!("cargo xtask build-torch --recipe {} --python {minor}", recipe.name);
    if let Some(cuda) = recipe.cuda.as_ref().filter(|_| !brings_toolkit(recipe)) {
        command.push_str(&format!(" --cuda-home {}", releases::installed_at(&cuda.version, recipe.system)));
    }
    let mut lines = vec![command];
    if !asker.windows() {
        lines.push("python -m pip install dist/torch-*.whl".into());
    }
    let mut costs = "hours of compiling, once; then the wheel can be shared".to_owned();
    if let Some(driver) = driver_for(asker, recipe) {
        costs.push_str(&and_a_driver(driver));
    }
    let build = Version::from_str(&recipe.torch.full_version()).ok().map(|version| Proposal {
        version,
        cuda: recipe.cuda.as_ref().map(|c| c.version.clone()),
        cxx11_abi: recipe.torch.cxx11_abi,
    });
    Remedy { state: Some(state), build, ..remedy(what, lines, &BOTH, costs) }
}

/// The oldest driver that `recipe`'s CUDA runs with, if the machine's is older.
fn driver_for(asker: &Asker<'_>, recipe: &Recipe) -> Option<&'static str> {
    releases::newer_driver(&recipe.cuda.as_ref()?.version, asker.driver_system, &asker.gpus.first()?.driver)
}

/// Whether `recipe` is for another major version of CUDA than the torch that is there: what is compiled for that one
/// does not load beside it.
fn other_cuda(asker: &Asker<'_>, recipe: &Recipe) -> bool {
    let own = asker.report.and_then(|r| r.torch.cuda.as_deref()).and_then(releases::major);
    own.is_some() && own != recipe.cuda.as_ref().and_then(Cuda::major)
}

/// Whether what `recipe` makes would run where the asker is, and take nothing away.
fn fits(asker: &Asker<'_>, recipe: &Recipe) -> bool {
    let system = match asker.python.platform.as_str() {
        "win32" => System::Windows,
        "darwin" => System::Macos,
        _ => System::Linux,
    };
    let python = || {
        let range = VersionSpecifiers::from_str(&recipe.python.requires).ok()?;
        Some(range.contains(&Version::from_str(&asker.python.version).ok()?))
    };
    let runs = |gpu: &Gpu| {
        let Some(architectures) = recipe.cuda.as_ref().map(|c| &c.architectures) else { return true };
        let Some(own) = gpu.compute_capability.as_deref() else { return true };
        architectures.iter().any(|architecture| runs_on(architecture, numbers(own)))
    };
    let machine = crate::toolchain::machine_of(&asker.python.machine);
    recipe.system == system
        && recipe.python.machines.iter().any(|m| m == machine)
        && recipe.cuda.is_some() == asker.wants_cuda()
        && python().unwrap_or(false)
        && asker.gpus.iter().all(runs)
}

/// Whether torchrun fails, by what the files of this torch say.
pub fn torchrun_crashes(report: &Report) -> bool {
    report.defaults.is_some_and(|d| d.torchrun == Outcome::Crash)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By the tables of the CUDA programming guide.
    #[test]
    fn code_for_one_chip_runs_on_it_alone_and_code_for_a_family_on_its_later_members() {
        for (architecture, on, not_on) in [
            ("9.0", &["9.0"][..], &["8.9", "10.0"][..]),
            ("8.0", &["8.0", "8.6", "8.9"], &["7.5", "9.0"]),
            ("8.0+PTX", &["8.0", "8.9", "9.0", "12.1"], &["7.5"]),
            ("9.0a", &["9.0"], &["10.0", "12.0"]),
            ("9.0a+PTX", &["9.0"], &["10.0", "12.0"]),
            ("10.0", &["10.0", "10.3"], &["11.0", "12.0"]),
            ("10.0a", &["10.0"], &["10.3", "12.0"]),
            ("10.0f", &["10.0", "10.3"], &["9.0", "11.0", "12.0"]),
            ("10.0f+PTX", &["10.0", "10.3"], &["11.0", "12.0"]),
            ("10.3f", &["10.3"], &["10.0", "12.0"]),
            ("12.0f", &["12.0", "12.1"], &["10.0", "10.3", "11.0"]),
            ("12.1f", &["12.1"], &["12.0"]),
        ] {
            for gpu in on {
                assert!(runs_on(architecture, numbers(gpu)), "{architecture} on {gpu}");
            }
            for gpu in not_on {
                assert!(!runs_on(architecture, numbers(gpu)), "{architecture} on {gpu}");
            }
        }
    }
}
