//! canary: minutes after the start, long before the compile ends, the objects of this very build
//! serve a libuv store to several clients. A build that would end without libuv stops here.

use std::time::Duration;

use super::{Build, CompilerCache, Work, ninja, pyenv, timing::timed};
use crate::error::{Error, Result};
use crate::event::Event;
use crate::platform;
use crate::toolchain::{Family, LAUNCH_COMMAND, Process, msvc};

/// Name in events and records.
pub const STAGE: &str = "canary";

/// The program.
const PROGRAM: &str = include_str!("canary.cpp");

/// The store's sources, below `torch/csrc/distributed/c10d`. Names differ a little between
/// versions: those that the build has are taken.
const STORE_OBJECTS: &[&str] = &[
    "Backoff.cpp",
    "FileStore.cpp",
    "HashStore.cpp",
    "PrefixStore.cpp",
    "Store.cpp",
    "TCPStore.cpp",
    "TCPStoreBackend.cpp",
    "TCPStoreLibUvBackend.cpp",
    "debug.cpp",
    "logging.cpp",
    "socket.cpp",
    "error.cpp",
];

/// Builds and runs the canary in `work`, unless that was done.
pub fn run(build: &Build<'_>, work: &Work, cache: &CompilerCache) -> Result<()> {
    if work.is_done(STAGE) {
        build.events.emit(Event::StageCached { stage: STAGE });
        return Ok(());
    }
    timed(build, STAGE, "", || make(build, work, cache))
}

fn make(build: &Build<'_>, work: &Work, cache: &CompilerCache) -> Result<()> {
    let all: Vec<String> = ninja::targets(work)?.into_iter().map(|(output, _)| output).collect();
    let objects: Vec<String> = STORE_OBJECTS
        .iter()
        .filter_map(|name| {
            let ends = [".o", ".obj"].map(|suffix| format!("/csrc/distributed/c10d/{name}{suffix}"));
            all.iter().find(|t| ends.iter().any(|end| t.ends_with(end)) && t.contains("torch_cpu.dir")).cloned()
        })
        .collect();
    let backend = objects.iter().find(|o| o.contains("TCPStoreLibUvBackend.cpp.o")).cloned().ok_or_else(|| {
        Error::world(
            "canary",
            "torch_cpu has no object TCPStoreLibUvBackend.cpp.o: this version's store cannot run on libuv",
        )
        .next("libuv came to the store with PyTorch 2.2; choose a recipe for a later version")
    })?;
    let c10 = all
        .iter()
        .find(|t| ["libc10.so", "libc10.dylib", "c10.lib"].iter().any(|name| t.ends_with(name)))
        .cloned()
        .ok_or_else(|| Error::world("canary", "the build has no libc10"))?;
    let mut targets = objects.clone();
    targets.push(c10.clone());
    // What the store's objects wait for is made by one process: the stubs for Python, which wait for nothing that is
    // compiled, keep another core busy.
    targets.extend(all.iter().filter(|t| t.ends_with("/torch/_C/__init__.pyi")).cloned());
    ninja::run(build, work, cache, &targets, STAGE)?;
    demand_libuv(build, work, &backend)?;

    let source = work.dir.join("canary.cpp");
    let program = work.dir.join(format!("canary{}", std::env::consts::EXE_SUFFIX));
    fs_err::write(&source, PROGRAM)?;
    let build_dir = work.build();
    let object = work.dir.join("canary.o");
    let msvc = build.compiler.family == Family::Msvc;
    let command = compile_command(work, &backend)?;
    let (flags, out) = if msvc {
        (msvc::compile_flags(&command), vec![format!("/Fo{}", object.display())])
    } else {
        let mut flags = compile_flags(&command)?;
        flags.retain(|f| !f.starts_with("-W") && f != "-fopenmp");
        let dependencies = work.dir.join("canary.d").display().to_string();
        (flags, vec!["-MD".into(), "-MF".into(), dependencies, "-o".into(), object.display().to_string()])
    };
    // Compiled as the build compiles: torch's headers take a compiler long, and a cache remembers.
    Process::new(work.launcher())
        .arg(LAUNCH_COMMAND)
        .arg(&work.dir)
        .arg(&build.compiler.cxx)
        .args(&flags)
        .args(&out)
        .arg("-c")
        .arg(&source)
        .envs(build.torch_env(work))
        .envs(cache.env(build, work))
        .cwd(&build_dir)
        .check("canary-link", Some(&work.log(STAGE)))
        .map_err(|e| e.doing("compiling a small program against the store of this build"))?;
    let (uv, rest) = if msvc {
        ("lib/uv.lib", vec!["ws2_32.lib".into(), "/nologo".into(), format!("/Fe{}", program.display())])
    } else {
        let run_path = format!("-Wl,-rpath,{}", build_dir.join("lib").display());
        ("lib/libuv.a", ["-lpthread", "-ldl", "-o", &program.display().to_string(), &run_path].map(Into::into).into())
    };
    Process::new(&build.compiler.cxx)
        .arg(&object)
        .args(objects.iter().map(|o| build_dir.join(o)))
        .arg(build_dir.join(&c10))
        .arg(work.dep("uv").join(uv))
        .args(rest)
        .envs(build.torch_env(work))
        .cwd(&build_dir)
        .check("canary-link", Some(&work.log(STAGE)))
        .map_err(|e| e.doing("linking a small program from the store's objects of this build"))?;
    let output = Process::new(&program)
        .env("TORCH_CPP_LOG_LEVEL", "WARNING")
        .envs(platform::own_variables(&work.dir))
        // Where Windows looks for libraries.
        .env("PATH", std::env::join_paths([build_dir.join("bin"), work.dep("uv").join("bin")]).unwrap_or_default())
        .cwd(&work.dir)
        .timeout(Duration::from_secs(120))
        .check("canary-run", Some(&work.log(STAGE)))
        .map_err(|e| {
            e.doing("running a libuv store with several clients from the objects of this build")
                .next("the build stopped here because it would end without a working libuv store")
        })?;
    let report = output
        .text
        .lines()
        .find(|l| l.starts_with('{'))
        .and_then(|l| serde_json::from_str::<serde_json::Value>(l).ok());
    let report = report.ok_or_else(|| {
        Error::world("canary-run", format!("the canary said nothing that can be read: {}", output.text.trim()))
    })?;
    build.events.note(format!(
        "canary: a libuv store of this build served {} clients, {} operations",
        report["clients"], report["operations"]
    ));
    work.done(STAGE, &serde_json::json!({ "report": report }))
}

/// Whether the object file holds the daemon: by its type info, never by a string of an error.
fn demand_libuv(build: &Build<'_>, work: &Work, object: &str) -> Result<()> {
    let bytes = fs_err::read(work.build().join(object))?;
    if crate::inspect::object_names_libuv_store(&bytes) {
        return Ok(());
    }
    Err(Error::world(
        "no-libuv",
        format!("{object} was compiled without the libuv store: TORCH_USE_LIBUV did not reach torch_cpu"),
    )
    .next(format!("see {} for what CMake decided", work.build().join("torchmill-report.txt").display()))
    .next(format!("recipe {}: is something overriding the flags of torch_cpu?", build.recipe.name)))
}

/// The command that this build compiles `object` with.
fn compile_command(work: &Work, object: &str) -> Result<String> {
    let out = Process::new(pyenv::tool(&work.dep("pyenv"), "ninja"))
        .args(["-t", "commands", "-s", object])
        .cwd(work.build())
        .command()?
        .output()?;
    Ok(String::from_utf8_lossy(&out.stdout).lines().last().unwrap_or_default().to_owned())
}

/// The flags of a compile command, without source, output and dependency file.
fn compile_flags(command: &str) -> Result<Vec<String>> {
    let words =
        shlex::split(command).ok_or_else(|| Error::world("canary", "ninja printed a command that cannot be read"))?;
    let mut flags = Vec::new();
    let mut words = words.into_iter().skip_while(|w| !w.starts_with('-'));
    while let Some(word) = words.next() {
        match word.as_str() {
            "-o" | "-c" | "-MF" | "-MT" | "-MQ" => {
                words.next();
            }
            "-MD" | "-MMD" => {}
            _ => flags.push(word),
        }
    }
    Ok(flags)
}
