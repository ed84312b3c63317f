//! The benchmark of `tests/allreduce`: built against a subject, planned, run.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Effort;
use super::machine::driver_libraries;
use super::measured::{Collective, CollectiveOutput, Info, Job, Operators, Round, StoreRows};
use super::subject::Subject;
use crate::error::{Error, Result};
use crate::platform;
use crate::stage::steps::fetch::Fetch;
use crate::stage::steps::tree::Tree;
use crate::stage::{Build, Work, compiler_cache, engine, ensure, ensure_compiler, environment, stored};
use crate::store::{KeyBuilder, programs};
use crate::toolchain::tch::{BYPASS, CXX11_ABI, Release};
use crate::toolchain::{Output, Process, cargo};

/// Name in events and in the store.
const STAGE: &str = "benchmark";
/// Headers of CUDA that torch's own packages lack.
const HEADERS: &str = "cuda-headers";
const VERSION: u32 = 1;

/// The program's sources, as they stand in `tests/allreduce`.
const SOURCES: &[(&str, &str)] = &[
    ("Cargo.toml", include_str!("../../../tests/allreduce/Cargo.toml")),
    ("Cargo.lock", include_str!("../../../tests/allreduce/Cargo.lock")),
    ("build.rs", include_str!("../../../tests/allreduce/build.rs")),
    ("shim/c10d.cpp", include_str!("../../../tests/allreduce/shim/c10d.cpp")),
    ("src/main.rs", include_str!("../../../tests/allreduce/src/main.rs")),
    ("src/c10d.rs", include_str!("../../../tests/allreduce/src/c10d.rs")),
    ("src/collective.rs", include_str!("../../../tests/allreduce/src/collective.rs")),
    ("src/failure.rs", include_str!("../../../tests/allreduce/src/failure.rs")),
    ("src/launch.rs", include_str!("../../../tests/allreduce/src/launch.rs")),
    ("src/operators.rs", include_str!("../../../tests/allreduce/src/operators.rs")),
    ("src/pace.rs", include_str!("../../../tests/allreduce/src/pace.rs")),
    ("src/place.rs", include_str!("../../../tests/allreduce/src/place.rs")),
    ("src/rank.rs", include_str!("../../../tests/allreduce/src/rank.rs")),
    ("src/store.rs", include_str!("../../../tests/allreduce/src/store.rs")),
    ("src/table.rs", include_str!("../../../tests/allreduce/src/table.rs")),
];

/// The benchmark, linked against one subject.
#[derive(Debug)]
pub struct Program {
    path: PathBuf,
    /// What the dynamic linker needs to find: `LD_LIBRARY_PATH`.
    libraries: PathBuf,
    /// The subject's name.
    name: String,
    /// What its report has to say of it.
    notes: Vec<String>,
    info: Info,
}

impl Program {
    /// What a reader of its figures has to know: that tch's version check was bypassed, that NCCL was left out.
    pub fn notes(&self) -> impl Iterator<Item = String> + '_ {
        self.notes.iter().cloned()
    }
}

/// Builds the benchmark against `subject`, or finds it in the store.
///
/// # Errors
/// As [`fitting_tch`]; a stage fails; it does not compile, or does not run.
pub fn build(build: &Build<'_>, subject: &Subject) -> Result<Program> {
    let tch = fitting_tch(build, subject)?;
    let cuda = cuda_includes(build, subject)?;
    let key = KeyBuilder::new(STAGE, VERSION)
        .json("sources", &SOURCES)
        .text("subject", &subject.facts.sha256)
        .text("libtorch", &subject.libtorch.to_string_lossy())
        .text("tch", &tch.version)
        .json("cuda", &cuda)
        .text("compiler", &build.compiler.identity())
        .key("tree", &engine::key::<Tree>(build)?)
        .finish();
    let out = stored(build, STAGE, &key, |pending| {
        ensure::<Fetch>(build)?;
        compile(build, subject, tch, &cuda, &pending.scratch()?, &pending.out())?;
        Ok(serde_json::json!({ "subject": subject.facts.name, "tch": tch.version }))
    })?;
    let path = out.join("allreduce");
    let libraries = subject.libtorch.join("lib");
    let asked = process(&path, &libraries).args(["info", "--json"]).timeout(Duration::from_secs(120));
    let output =
        asked.check("benchmark", None).map_err(|e| e.doing(format!("starting the benchmark on {}", subject.name)))?;
    let info: Info =
        read(&output).ok_or_else(|| Error::world("benchmark", "the benchmark does not say what it can do"))?;
    let mut notes: Vec<String> = tch.bypassed(&subject.facts.version).into_iter().collect();
    if subject.facts.backends.iter().any(|name| name == "nccl") && !info.hardware.nccl {
        notes.push(format!("NCCL of {} was not measured: the headers that it takes were not there", subject.name));
    }
    Ok(Program { path, libraries, name: subject.name.clone(), notes, info })
}

/// The release of tch for this torch: recipes know it.
///
/// # Errors
/// Misuse: none does.
pub fn fitting_tch(build: &Build<'_>, subject: &Subject) -> Result<&'static Release> {
    let minor = |v: &str| v.split(['.', '+']).take(2).map(str::to_owned).collect::<Vec<_>>().join(".");
    let wanted = minor(&subject.facts.version);
    if minor(&build.recipe.torch.version) == wanted
        && let Some(tch) = &build.recipe.torch.tch
    {
        return Release::named(tch);
    }
    let mut known = Vec::new();
    for name in build.workspace.recipe_names() {
        let Ok(recipe) = build.workspace.load(&name) else { continue };
        if let Some(tch) = recipe.torch.tch {
            if minor(&recipe.torch.version) == wanted {
                return Release::named(&tch);
            }
            known.push(format!("torch {} (tch {tch})", minor(&recipe.torch.version)));
        }
    }
    known.sort();
    known.dedup();
    Err(Error::misuse("no-tch", format!("no recipe names a tch for torch {wanted}, which {} is", subject.name))
        .next(format!("builds that can be measured: {}", known.join(", ")))
        .next("or write a recipe for that version with torch.tch set"))
}

/// Folders with the headers of CUDA and NCCL: those of the wheels that torch needs, and `crt/` and `nv/`,
/// which the runtime's headers include and which are in packages of the compiler. Empty without NCCL.
fn cuda_includes(build: &Build<'_>, subject: &Subject) -> Result<Vec<PathBuf>> {
    let nvidia = subject.libtorch.parent().map(|site| site.join("nvidia"));
    let folders = nvidia.and_then(|n| std::fs::read_dir(n).ok()).into_iter().flatten().flatten();
    let mut includes: Vec<_> = folders.map(|e| e.path().join("include")).filter(|p| p.is_dir()).collect();
    includes.sort();
    let has = |header: &str| includes.iter().any(|d| d.join(header).is_file());
    if !has("nccl.h") {
        return Ok(Vec::new());
    }
    if has("crt/host_config.h") && has("nv/target") {
        return Ok(includes);
    }
    let Some(requirements) = subject.facts.cuda.as_deref().and_then(header_packages) else { return Ok(Vec::new()) };
    let key = KeyBuilder::new(HEADERS, VERSION).json("requirements", &requirements).finish();
    let fetched = stored(build, HEADERS, &key, |pending| {
        ensure::<Fetch>(build)?;
        environment::packages_from_index(build, &pending.out(), &pending.scratch()?, &requirements)?;
        Ok(serde_json::json!({ "requirements": requirements }))
    });
    match fetched {
        Ok(out) => {
            let folders = std::fs::read_dir(out.join("nvidia")).into_iter().flatten().flatten();
            includes.extend(folders.map(|e| e.path().join("include")).filter(|p| p.is_dir()));
            Ok(includes)
        }
        Err(e) => {
            platform::check_cancelled()?;
            build.events.warn(format!("NCCL is left out for {}: {e}", subject.name));
            Ok(Vec::new())
        }
    }
}

/// The packages with `crt/host_config.h` and `nv/target` for a version of CUDA (`12.4`).
fn header_packages(cuda: &str) -> Option<[String; 2]> {
    let (major, minor) = cuda.split_once('.')?;
    let minor = minor.split('.').next()?;
    Some(match major.parse::<u32>().ok()? {
        ..=12 => ["nvcc", "cccl"].map(|name| format!("nvidia-cuda-{name}-cu{major}=={major}.{minor}.*")),
        _ => ["crt", "cccl"].map(|name| format!("nvidia-cuda-{name}=={major}.{minor}.*")),
    })
}

fn compile(
    build: &Build<'_>,
    subject: &Subject,
    tch: &Release,
    cuda: &[PathBuf],
    scratch: &Path,
    out: &Path,
) -> Result<()> {
    let source = scratch.join("allreduce");
    for (name, text) in SOURCES {
        let path = source.join(name);
        fs_err::create_dir_all(path.parent().unwrap_or(&source))?;
        fs_err::write(&path, text)?;
    }
    let (manifest, lock) = (source.join("Cargo.toml"), source.join("Cargo.lock"));
    let (text, locked) = tch.pin(&fs_err::read_to_string(&manifest)?, &fs_err::read_to_string(&lock)?)?;
    fs_err::write(manifest, text)?;
    fs_err::write(lock, locked)?;
    ensure_compiler(build)?;
    // torch's headers take a compiler most of a minute.
    let cache = compiler_cache(build)?;
    let work = Work { dir: scratch.to_owned() };
    fs_err::create_dir_all(scratch.join("tmp"))?;
    let target = build.store.cache("benchmark");
    let _lock = build.store.lock("benchmark", build.events)?;
    // Cargo believes what stands there, and runs it.
    programs::judged(&target, build.events)?;
    let log = out.join("build.log");
    let cargo = cargo::process(&build.compiler, cache.program()).ok_or_else(|| {
        Error::world("cargo", "cargo is not on PATH: the benchmark is a Rust program")
            .next("run this through `cargo xtask`")
    })?;
    let base = cargo
        .cwd(&source)
        .env("LIBTORCH", &subject.libtorch)
        .env(CXX11_ABI, if subject.facts.cxx11_abi { "1" } else { "0" })
        .env(BYPASS, "1") // ours compares what matters: major and minor; a report tells where they differ
        .env("GLOO_SOURCE", ensure::<Tree>(build)?.folder.join("third_party/gloo"))
        .env("CUDA_INCLUDES", std::env::join_paths(cuda).map_err(|e| Error::world("path", e.to_string()))?)
        .env("CARGO_TARGET_DIR", &target)
        .envs(cache.env(build, &work));
    let fetch = base.clone().args(["fetch", "--quiet", "--locked"]);
    let fetch = if build.options.offline { fetch.arg("--offline") } else { fetch.with_network() };
    fetch.check("cargo", Some(&log)).map_err(|e| e.doing("fetching the crates of the benchmark"))?;
    let built = base.args(["build", "--release", "--locked", "--offline", "--quiet"]).check("cargo", Some(&log));
    programs::seal(&target)?;
    built.map_err(|e| e.doing(format!("building the benchmark against {}", subject.name)))?;
    fs_err::copy(target.join("release/allreduce"), out.join("allreduce"))?;
    platform::mark_executable(&out.join("allreduce"), true)
}

fn process(path: &Path, libraries: &Path) -> Process {
    let folders = std::iter::once(libraries.to_owned()).chain(driver_libraries());
    Process::new(path)
        .env("PATH", "/usr/bin:/bin")
        .env("LC_ALL", "C.UTF-8")
        // A folder's name with a separator could not be said at all.
        .env("LD_LIBRARY_PATH", std::env::join_paths(folders).unwrap_or_else(|_| libraries.into()))
        .envs(of_machine())
}

/// GPUs, NCCL and threads are the machine's: what the user set for them holds.
pub fn of_machine() -> impl Iterator<Item = (OsString, OsString)> {
    std::env::vars_os().filter(|(name, _)| {
        let name = name.to_string_lossy();
        ["NCCL_", "CUDA_", "GLOO_", "OMP_", "MKL_", "NVIDIA_"].iter().any(|p| name.starts_with(p))
    })
}

/// One call of the benchmark, the same for both builds.
#[derive(Debug, Clone)]
pub struct Command {
    part: Part,
    args: Vec<String>,
}

#[derive(Debug, Clone)]
enum Part {
    Collective(Job),
    Store,
    Operators,
}

impl Command {
    /// The command line, for people.
    pub fn shown(&self) -> String {
        format!("allreduce {}", self.args.join(" "))
    }
}

/// What is measured: the candidate's jobs (what its hardware allows, or what was asked for), the store,
/// the operators.
///
/// # Errors
/// Misuse: more NCCL ranks than GPUs, or CUDA without a GPU.
pub fn plan(programs: &[Program; 2], effort: &Effort) -> Result<Vec<Command>> {
    let [candidate, _] = programs;
    if effort.gpu && candidate.info.hardware.gpus == 0 {
        return Err(Error::misuse("no-gpu", format!("--gpu was asked for, and {} sees no GPU here", candidate.name))
            .next("is the driver new enough for its CUDA? `nvidia-smi` says which it serves")
            .next("CUDA_VISIBLE_DEVICES hides GPUs, if it is set"));
    }
    let mut jobs = candidate.info.jobs.clone();
    let wanted = |job: &Job| {
        effort.backend.as_ref().is_none_or(|b| *b == job.backend)
            && effort.device.as_ref().is_none_or(|d| *d == job.device)
    };
    jobs.retain(wanted);
    if effort.ranks.is_some() || jobs.is_empty() {
        let first = jobs.first().cloned();
        let backend =
            effort.backend.clone().or(first.as_ref().map(|j| j.backend.clone())).unwrap_or_else(|| "gloo".into());
        let device = effort.device.clone().or(first.map(|j| j.device)).unwrap_or_else(|| "cpu".into());
        let gpus = candidate.info.hardware.gpus;
        let ranks = effort.ranks.unwrap_or(2);
        if backend == "nccl" && ranks as usize > gpus {
            return Err(Error::misuse("ranks", format!("NCCL takes one rank a GPU: {ranks} ranks, {gpus} GPUs"))
                .next(format!("use --ranks up to {gpus}, or --backend gloo")));
        }
        if device == "cuda" && gpus == 0 {
            return Err(Error::misuse("device", "the candidate sees no GPU here, and --device cuda was asked for")
                .next("leave --device out, or check the driver with `cargo xtask doctor`"));
        }
        jobs = vec![Job { backend, device, ranks }];
    }
    let mut plan = Vec::new();
    let text = |args: &[&str]| args.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>();
    for job in jobs {
        let mut args = text(&["run", "--json", "--backend", &job.backend, "--device", &job.device, "--ranks"]);
        args.push(job.ranks.to_string());
        args.extend(text(&["--max-bytes", &effort.max_bytes.to_string(), "--factor", &effort.factor.to_string()]));
        args.extend(text(&[
            "--time",
            &effort.cell_seconds.to_string(),
            "--warmup",
            &(effort.cell_seconds / 4.0).to_string(),
        ]));
        plan.push(Command { part: Part::Collective(job), args });
    }
    let clients = effort.clients.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let args = text(&["store", "--json", "--clients", &clients, "--operations", &effort.operations.to_string()]);
    plan.push(Command { part: Part::Store, args });
    let batch = (effort.cell_seconds / 8.0).to_string();
    // Both on the same: a processor is not held against a GPU.
    let on_gpus = programs.iter().all(|program| program.info.hardware.gpus > 0);
    let device = effort.device.as_deref().unwrap_or(if on_gpus { "cuda" } else { "cpu" });
    let args = text(&["operators", "--json", "--device", device, "--batch", &batch]);
    plan.push(Command { part: Part::Operators, args });
    Ok(plan)
}

/// Runs one command on one build and notes what came out.
///
/// # Errors
/// Wrong sums (the answer is no), or a benchmark that dies for a reason that is not the build's lack
/// of something.
pub fn measure(build: &Build<'_>, program: &Program, command: &Command, round: &mut Round) -> Result<()> {
    build.events.note(format!("{} on {}", command.shown(), program.name));
    let unavailable = |why: String, round: &mut Round| {
        if let Part::Collective(job) = &command.part {
            round.collective.push(Collective { job: job.clone(), rows: Err(why) });
        }
    };
    if let Part::Collective(job) = &command.part {
        let there = &program.info.hardware;
        let backend = if job.backend == "nccl" { there.nccl } else { there.gloo };
        if !backend || (job.device == "cuda" && there.gpus < 1) {
            unavailable(format!("this build cannot: no {} for {} tensors here", job.backend, job.device), round);
            return Ok(());
        }
    }
    let mut call = process(&program.path, &program.libraries).args(&command.args).timeout(Duration::from_secs(3600));
    // Without network, the store's look-up of each client's name fails at once instead of waiting for
    // DNS; loopback is there. NCCL wants to see the machine's own interfaces.
    if matches!(&command.part, Part::Collective(job) if job.device == "cuda") {
        call = call.with_network();
    }
    if let Part::Collective(_) = command.part
        && !program.info.libuv
    {
        // Its rendezvous has to run on something; the lack is in the store's cells.
        call = call.args(["--store", "legacy"]);
    }
    let output = call.run(None, &mut |_| {})?;
    match output.status.code() {
        Some(0) => {}
        // Wrong sums: the rows say how many, where they were printed.
        Some(1) if read::<CollectiveOutput>(&output).is_some() => {}
        _ => {
            return Err(Error::world(
                "benchmark",
                format!(
                    "`{}` on {} ended with {}:\n{}",
                    command.shown(),
                    program.name,
                    output.status,
                    tail(&output.text)
                ),
            ));
        }
    }
    let unread =
        || Error::world("benchmark", format!("`{}` printed no result:\n{}", command.shown(), tail(&output.text)));
    match &command.part {
        Part::Collective(job) => {
            let rows = read::<CollectiveOutput>(&output).ok_or_else(unread)?.rows;
            round.collective.push(Collective { job: job.clone(), rows: Ok(rows) });
        }
        Part::Store => round.store = Some(read::<StoreRows>(&output).ok_or_else(unread)?),
        Part::Operators => round.operators = Some(read::<Operators>(&output).ok_or_else(unread)?),
    }
    Ok(())
}

fn tail(text: &str) -> String {
    crate::toolchain::tail_of(text, 12)
}

/// What the benchmark reported.
fn read<T: serde::de::DeserializeOwned>(output: &Output) -> Option<T> {
    serde_json::from_value(output.last_json()?).ok()
}
