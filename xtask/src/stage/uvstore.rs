//! uvstore: the store of this very torch, with libuv and c10, as a small program that needs no torch:
//! a libuv rendezvous for builds that have none. Made after canary, whose build folder has the headers
//! that torch's build writes.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Build, CompilerCache, Outcome, Work, bundle, canary, configure, libuv, prefix, pyenv};
use crate::artifact::wheel::collect;
use crate::artifact::{Content, Member};
use crate::error::{Context, Error, Result};
use crate::platform;
use crate::store::{Key, KeyBuilder, digest_file};
use crate::toolchain::Process;

/// Name in events and in the store.
pub const STAGE: &str = "uvstore";
const VERSION: u32 = 1;

const SOURCES: &[(&str, &str)] = &[
    ("CMakeLists.txt", include_str!("uvstore/CMakeLists.txt")),
    ("main.cpp", include_str!("uvstore/main.cpp")),
    ("sitecustomize.py", include_str!("uvstore/sitecustomize.py")),
];

/// What came out, and what its own clients made of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// The program's file name.
    pub file: String,
    /// What `uvstore check` printed, against a server of the same program.
    pub check: serde_json::Value,
}

/// The key.
///
/// # Errors
/// As those of the stages before it.
pub fn key(build: &Build<'_>) -> Result<Key> {
    Ok(KeyBuilder::new(STAGE, VERSION).key("configure", &configure::key(build)?).json("sources", &SOURCES).finish())
}

/// Builds the program and tries it, or finds it in the store. `build` stops after canary
/// (`options.until`). Returns its path.
///
/// # Errors
/// A stage before it fails; it does not compile; it serves its clients wrong.
pub fn run(build: &Build<'_>) -> Result<(PathBuf, Record)> {
    let key = key(build)?;
    let out = build.stage(STAGE, &key, |pending| {
        let Outcome::Stopped { after: canary::STAGE, folder } = super::run(build)? else {
            return Err(Error::misuse("until", "uvstore is made after the canary: options.until must say so"));
        };
        let work = Work { dir: folder };
        let scratch = pending.scratch()?;
        compile(build, &work, &scratch, &pending.out().join("build.log"))?;
        // Licences of what is linked in.
        let uv = scratch.join("libuv");
        for (name, source) in [("pytorch", &work.src()), ("fmt", &work.src().join("third_party/fmt")), ("libuv", &uv)] {
            let text = ["LICENSE", "LICENSE.rst"].map(|n| source.join(n)).into_iter().find(|p| p.is_file());
            let text = text.ok_or_else(|| Error::world("license", format!("the source of {name} has no LICENSE")))?;
            let folder = pending.out().join("licenses").join(name);
            fs_err::create_dir_all(&folder)?;
            fs_err::copy(text, folder.join("LICENSE"))?;
        }
        let file = format!("uvstore{}", std::env::consts::EXE_SUFFIX);
        let program = pending.out().join(&file);
        fs_err::copy(scratch.join("build").join(&file), &program)?;
        platform::mark_executable(&program, true)?;
        Ok(Record { check: check(&program)?, file })
    })?;
    let record: Record = build
        .store
        .record(STAGE, &key)
        .ok_or_else(|| Error::world("store", "the record of the stage 'uvstore' cannot be read"))?;
    Ok((out.join(&record.file), record))
}

/// Packs the program at `program` into the folder `to`; the archive and its SHA-256.
///
/// # Errors
/// The archive cannot be written.
pub fn pack(build: &Build<'_>, program: &Path, to: &Path) -> Result<(PathBuf, String)> {
    let torch = &build.recipe.torch;
    let stem = format!("uvstore-{}-{}-{}", torch.version, std::env::consts::OS, build.python.machine);
    let folder = program.parent().unwrap_or(Path::new("."));
    let mut members = collect(&folder.join("licenses"))?;
    for member in &mut members {
        member.name = format!("{stem}/licenses/{}", member.name);
    }
    let file = program.file_name().unwrap_or_default().to_string_lossy();
    members.push(Member { name: format!("{stem}/{file}"), content: Content::File(program.into()), executable: true });
    let readme = README.replace("VERSION", &torch.version).into_bytes();
    members.push(Member { name: format!("{stem}/README.txt"), content: Content::Bytes(readme), executable: false });
    members.sort_by(|a, b| a.name.cmp(&b.name));
    fs_err::create_dir_all(to)?;
    let archive = to.join(format!("{stem}.tar.gz"));
    let beside = tempfile::Builder::new().prefix(".uvstore-").tempfile_in(to)?;
    bundle::write_tar(&members, beside.reopen()?, torch.epoch)?;
    platform::make_readable(beside.as_file())?;
    beside.persist(&archive).map_err(|e| Error::from(e.error))?;
    let (sha256, _) = digest_file(&archive)?;
    Ok((archive, sha256))
}

const README: &str = "\
uvstore, made from PyTorch VERSION: a TCPStore server on libuv, for a torch that was built without it.

  ./uvstore run -- python train.py
  ./uvstore run -- torchrun --nproc-per-node 4 train.py
  ./uvstore --help

Licences of what is linked in: licenses/. More: docs/uvstore.md of torchwright.
";

fn compile(build: &Build<'_>, work: &Work, scratch: &Path, log: &Path) -> Result<()> {
    let (source, uv) = (scratch.join("source"), scratch.join("libuv"));
    fs_err::create_dir_all(&source)?;
    for (name, text) in SOURCES {
        fs_err::write(source.join(name), text)?;
    }
    libuv::unpack_source(build, &uv)?;
    let pyenv = pyenv::run(build)?;
    let cache = CompilerCache::choose(build, &pyenv, &prefix::run(build)?);
    let here = Work { dir: scratch.to_owned() };
    fs_err::create_dir_all(scratch.join("tmp"))?;
    let base = |program: &Path| {
        Process::new(program)
            .env("PATH", build.tool_path(&pyenv))
            .env("LC_ALL", "C.UTF-8")
            .env("TZ", "UTC")
            .env("HOME", scratch)
            .env("SOURCE_DATE_EPOCH", build.recipe.torch.epoch.to_string())
            .env("CC", &build.compiler.cc)
            .env("CXX", &build.compiler.cxx)
            .envs(cache.env(build, &here))
            .cwd(&source)
    };
    let flags =
        format!("-ffile-prefix-map={}=/uvstore -ffile-prefix-map={}=/torch", scratch.display(), work.dir.display());
    let mut configure = base(&pyenv.join("bin/cmake"))
        .args(["-S", ".", "-B"])
        .arg(scratch.join("build"))
        .args(["-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release"])
        .arg(format!("-DTORCH_SOURCE={}", work.src().display()))
        .arg(format!("-DTORCH_GENERATED={}", work.build().display()))
        .arg(format!("-DUV_SOURCE={}", uv.display()))
        .arg(format!("-DCMAKE_C_FLAGS={flags}"))
        .arg(format!("-DCMAKE_CXX_FLAGS={flags}"));
    if let Some(program) = cache.program() {
        for language in ["C", "CXX"] {
            configure = configure.arg(format!("-DCMAKE_{language}_COMPILER_LAUNCHER={}", program.display()));
        }
    }
    configure.check("uvstore-configure", Some(log)).doing(|| "configuring uvstore".into())?;
    base(&pyenv.join("bin/ninja"))
        .arg("-C")
        .arg(scratch.join("build"))
        .args(["-j", &super::jobs(build).to_string(), "uvstore"])
        .check("uvstore-build", Some(log))
        .doing(|| "compiling uvstore".into())?;
    Ok(())
}

/// A server that ends with this value.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start(program: &Path) -> Result<Self> {
        let mut child = std::process::Command::new(program)
            .args(["serve", "--port", "0"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .doing(|| format!("starting {}", program.display()))?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let said: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
        let port = said["port"].as_u64().and_then(|p| u16::try_from(p).ok());
        let mut server = Self { child, port: port.unwrap_or(0) };
        if port.is_none() || said["libuv"] != true {
            let status = server.child.wait()?;
            return Err(Error::world(
                "uvstore",
                format!("uvstore did not begin to serve: it said '{}' ({status})", line.trim()),
            ));
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Two processes with many clients each, on one server: what the second one printed.
fn check(program: &Path) -> Result<serde_json::Value> {
    let server = Server::start(program)?;
    let port = server.port.to_string();
    let clients = |first: &str| {
        let process = Process::new(program)
            .args(["check", "--port", &port, "--clients", "16", "--rounds", "50", "--first", first])
            .with_network()
            .timeout(Duration::from_secs(120));
        process.check("uvstore", None).doing(|| "trying the store with clients of its own".into())
    };
    let (a, b) = rayon::join(|| clients("0"), || clients("1000"));
    a?;
    b?.last_json().ok_or_else(|| Error::world("uvstore", "uvstore check printed nothing"))
}
