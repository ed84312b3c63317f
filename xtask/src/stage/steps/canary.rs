//! canary: minutes after the start, long before the compile ends, the objects of this very build
//! serve a libuv store to several clients. A build that would end without libuv stops here.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::compile::Compile;
use super::configure::STORE_OBJECTS;
use super::prefix::compiler_cache;
use crate::error::{Error, Result};
use crate::platform;
use crate::stage::build::Build;
use crate::stage::objects::audit;
use crate::stage::step::{Ahead, Cx, Step};
use crate::stage::work::ninja::{self, Goal};
use crate::stage::work::{Work, room};
use crate::store::Parts;
use crate::toolchain::{Family, LAUNCH_COMMAND, Process, msvc};

/// The stage that ends a build early that would have no libuv store.
pub struct Canary;

/// What is kept of a canary.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// What the program printed.
    pub report: serde_json::Value,
}

/// The program that the store's objects are linked to.
const PROGRAM: &str = include_str!("canary.cpp");

impl Step for Canary {
    type Record = Record;
    const NAME: &'static str = "canary";
    const WHAT: &'static str = "a libuv store of this very build serves, or all stops here";
    const EMBEDS: &'static [(&'static str, &'static str)] = &[("canary.cpp", PROGRAM)];

    fn inputs(_cx: &Cx<'_>, parts: &mut Parts) -> Result<()> {
        parts.json("objects", &STORE_OBJECTS);
        Ok(())
    }

    fn check(build: &Build<'_>, ahead: &Ahead) -> Result<()> {
        room::check(build, ahead.work.as_ref(), ahead.has::<Compile>())
    }

    fn run(cx: &Cx<'_>) -> Result<Record> {
        let report = make(cx)?;
        cx.build.events.note(format!(
            "canary: a libuv store of this build served {} clients, {} operations",
            report["clients"], report["operations"]
        ));
        Ok(Record { report })
    }

    /// The sample of what came from elsewhere is one of the whole build. Where no compile comes that draws the rest, it
    /// is drawn here.
    fn end(cx: &Cx<'_>) -> Result<()> {
        let (build, work) = (cx.build, cx.work()?);
        if !audit::owes(work)? {
            return Ok(());
        }
        // It is compiled in the places of the objects.
        let _lock = build.store.lock(&format!("work-{}", work.name()), build.events)?;
        ninja::make_up(build, work, &compiler_cache(cx)?)
    }
}

/// Makes the canary and lets it fly; what it printed.
fn make(cx: &Cx<'_>) -> Result<serde_json::Value> {
    let (build, work, cache) = (cx.build, cx.work()?, compiler_cache(cx)?);
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
    ninja::run(build, work, &cache, Goal::Few(&targets), Canary::NAME)?;
    check_has_libuv(build, work, &backend)?;

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
        .hide(build.compiler.hidden())
        .envs(build.torch_env(work))
        .envs(cache.env(build, work))
        .cwd(&build_dir)
        .check("canary-link", Some(&work.log(Canary::NAME)))
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
        .hide(build.compiler.hidden())
        .envs(build.torch_env(work))
        .cwd(&build_dir)
        .check("canary-link", Some(&work.log(Canary::NAME)))
        .map_err(|e| e.doing("linking a small program from the store's objects of this build"))?;
    let output = Process::new(&program)
        .env("TORCH_CPP_LOG_LEVEL", "WARNING")
        .envs(platform::own_variables(&work.dir))
        // Where Windows looks for libraries.
        .env("PATH", std::env::join_paths([build_dir.join("bin"), work.dep("uv").join("bin")]).unwrap_or_default())
        .cwd(&work.dir)
        .timeout(Duration::from_secs(120))
        .check("canary-run", Some(&work.log(Canary::NAME)))
        .map_err(|e| {
            e.doing("running a libuv store with several clients from the objects of this build")
                .next("the build stopped here because it would end without a working libuv store")
        })?;
    let report = output
        .text
        .lines()
        .find(|l| l.starts_with('{'))
        .and_then(|l| serde_json::from_str::<serde_json::Value>(l).ok());
    report.ok_or_else(|| {
        Error::world("canary-run", format!("the canary said nothing that can be read: {}", output.text.trim()))
    })
}

/// Whether the object file holds the daemon: by its type info, never by a string of an error.
fn check_has_libuv(build: &Build<'_>, work: &Work, object: &str) -> Result<()> {
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
    let out = work.ask_ninja(&["-t", "commands", "-s", object])?;
    Ok(String::from_utf8_lossy(&out).lines().last().unwrap_or_default().to_owned())
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
