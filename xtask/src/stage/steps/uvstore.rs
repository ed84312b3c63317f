//! uvstore: the store of this very torch, with libuv and c10, as a small program that needs no torch:
//! a libuv rendezvous for builds that have none. Made after canary, whose build folder has the headers
//! that torch's build writes.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::prefix::compiler_cache;
use super::pyenv::Pyenv;
use super::{bundle, libuv};
use crate::artifact::wheel::collect;
use crate::artifact::{Content, Member, ZipWriter};
use crate::error::{Context, Error, Result};
use crate::platform;
use crate::source::patch;
use crate::stage::build::Build;
use crate::stage::environment;
use crate::stage::peers::Peer;
use crate::stage::step::{Cx, Done, Step};
use crate::stage::work::{Work, ninja};
use crate::store::{Parts, digest_file};
use crate::toolchain::Process;
use crate::toolchain::mingw::{Mingw, Wine};

/// The stage: a result for each system that the program can be made for.
pub struct Uvstore;

const SOURCES: &[(&str, &str)] = &[
    ("CMakeLists.txt", include_str!("../uvstore/CMakeLists.txt")),
    ("main.cpp", include_str!("../uvstore/main.cpp")),
    ("sitecustomize.py", include_str!("../uvstore/sitecustomize.py")),
];

/// The name of the result for Windows.
const WINDOWS: &str = "windows";

/// What the program is for.
#[derive(Debug, Clone)]
pub enum Target {
    /// The machine that it is made on.
    Host,
    /// x86-64 Windows, made with mingw-w64 and tried with Wine.
    Windows(Mingw, Wine),
}

impl Target {
    /// Windows, with the tools of this machine.
    ///
    /// # Errors
    /// One of them is not installed.
    pub fn windows(build: &Build<'_>) -> Result<Self> {
        Ok(Self::Windows(Mingw::find()?, Wine::find(&build.store.cache("wine"))?))
    }

    /// The target whose result is called `of`.
    fn called(build: &Build<'_>, of: &str) -> Result<Self> {
        if of == WINDOWS { Self::windows(build) } else { Ok(Self::Host) }
    }

    /// The name of its result.
    pub fn of(&self) -> &'static str {
        match self {
            Self::Host => "",
            Self::Windows(..) => WINDOWS,
        }
    }

    /// Compiler and Wine, by what decides what comes out; `None` where it is the build's own compiler.
    ///
    /// # Errors
    /// One of them does not run.
    pub fn tools(&self) -> Result<Option<(String, String)>> {
        match self {
            Self::Host => Ok(None),
            Self::Windows(mingw, wine) => Ok(Some((mingw.identity()?, wine.version()?))),
        }
    }

    fn os(&self) -> &'static str {
        match self {
            Self::Host => std::env::consts::OS,
            Self::Windows(..) => "windows",
        }
    }

    fn file(&self) -> String {
        match self {
            Self::Host => format!("uvstore{}", std::env::consts::EXE_SUFFIX),
            Self::Windows(..) => "uvstore.exe".into(),
        }
    }

    /// The program at `path`, ready to be run.
    #[must_use]
    pub fn peer(&self, path: &Path) -> Peer {
        match self {
            Self::Host => Peer::here(path),
            Self::Windows(_, wine) => Peer::in_wine(path, wine),
        }
    }
}

/// Headers that mingw-w64 alone needs, below `patches/`.
const MINGW_HEADERS: &str = "mingw/include";

/// What mingw-w64 alone needs changed, below `patches/`.
fn mingw_patch(build: &Build<'_>) -> String {
    format!("mingw/pytorch-{}.patch", build.recipe.torch.version)
}

/// What came out, and what its own clients made of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// The program's file name.
    pub file: String,
    /// What `uvstore check` printed, against a server of the same program.
    pub check: serde_json::Value,
}

impl Step for Uvstore {
    type Record = Record;
    const NAME: &'static str = "uvstore";
    const WHAT: &'static str = "the store of this torch as a program of its own";
    const EMBEDS: &'static [(&'static str, &'static str)] = SOURCES;

    fn of(_build: &Build<'_>) -> Vec<String> {
        vec![String::new(), WINDOWS.to_owned()]
    }

    fn inputs(cx: &Cx<'_>, parts: &mut Parts) -> Result<()> {
        let target = Target::called(cx.build, cx.of)?;
        if let Some((mingw, wine)) = target.tools()? {
            parts.text("mingw", mingw);
            parts.text("wine", wine);
            let patch = mingw_patch(cx.build);
            cx.patch_input(&patch, parts).map_err(|_| {
                Error::misuse(
                    "no-mingw-patch",
                    format!("there is no patches/{patch}: the store of this torch was never compiled with mingw-w64"),
                )
                .next("choose a recipe of torch 2.6.0, or write that patch")
            })?;
            cx.patch_input(MINGW_HEADERS, parts)?;
        }
        Ok(())
    }

    fn run(cx: &Cx<'_>) -> Result<Record> {
        let (build, work, out) = (cx.build, cx.work()?, cx.out()?);
        let target = Target::called(build, cx.of)?;
        let scratch = cx.scratch()?;
        compile(cx, &target, work, &scratch, &out.join("build.log"))?;
        // Licences of what is linked in.
        let uv = scratch.join("libuv");
        for (name, source) in [("pytorch", &work.src()), ("fmt", &work.src().join("third_party/fmt")), ("libuv", &uv)] {
            let text = ["LICENSE", "LICENSE.rst"].map(|n| source.join(n)).into_iter().find(|p| p.is_file());
            let text = text.ok_or_else(|| Error::world("license", format!("the source of {name} has no LICENSE")))?;
            let folder = out.join("licenses").join(name);
            fs_err::create_dir_all(&folder)?;
            fs_err::copy(text, folder.join("LICENSE"))?;
        }
        let file = target.file();
        let program = out.join(&file);
        fs_err::copy(scratch.join("build").join(&file), &program)?;
        platform::mark_executable(&program, true)?;
        let peer = target.peer(&program);
        let check = peer.check_itself();
        peer.stop();
        Ok(Record { check: check?, file })
    }
}

/// The program of a result.
pub fn program(done: &Done<Record>) -> PathBuf {
    done.folder.join(&done.record.file)
}

/// Packs the program at `program` into the folder `to`; the archive and its SHA-256.
///
/// # Errors
/// The archive cannot be written.
pub fn pack(build: &Build<'_>, target: &Target, program: &Path, to: &Path) -> Result<(PathBuf, String)> {
    let torch = &build.recipe.torch;
    let stem = format!("uvstore-{}-{}-{}", torch.version, target.os(), build.python.machine);
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
    let beside = tempfile::Builder::new().prefix(".uvstore-").tempfile_in(to)?;
    // What each system opens by itself.
    let archive = match target {
        Target::Host => {
            bundle::write_tar(&members, beside.reopen()?, torch.epoch)?;
            to.join(format!("{stem}.tar.gz"))
        }
        Target::Windows(..) => {
            let mut zip = ZipWriter::new(beside.reopen()?, torch.epoch);
            zip.add_all(&members)?;
            zip.finish()?.sync_all()?;
            to.join(format!("{stem}.zip"))
        }
    };
    platform::make_readable(beside.as_file())?;
    platform::persist(beside, &archive)?;
    let (sha256, _) = digest_file(&archive)?;
    Ok((archive, sha256))
}

const README: &str = "\
uvstore, made from PyTorch VERSION: a TCPStore server on libuv, for a torch that was built without it.

  ./uvstore run -- python train.py
  ./uvstore run -- torchrun --nproc-per-node 4 train.py
  ./uvstore --help

Licences of what is linked in: licenses/. More: docs/uvstore.md of torchmill.
";

/// Copies of the tree's files that the patch for mingw-w64 names, patched: no product is made of them.
fn overlay(cx: &Cx<'_>, work: &Work, to: &Path) -> Result<()> {
    let patch_file = cx.patch(&mingw_patch(cx.build))?;
    for line in fs_err::read_to_string(&patch_file)?.lines() {
        if let Some(name) = line.strip_prefix("--- a/") {
            let copy = to.join(name);
            fs_err::create_dir_all(copy.parent().unwrap_or(to))?;
            fs_err::copy(work.src().join(name), copy)?;
        }
    }
    patch::apply(&patch_file, to, 1).doing(|| "changing what mingw-w64 does not compile".into())
}

fn compile(cx: &Cx<'_>, target: &Target, work: &Work, scratch: &Path, log: &Path) -> Result<()> {
    let build = cx.build;
    let (source, uv) = (scratch.join("source"), scratch.join("libuv"));
    fs_err::create_dir_all(&source)?;
    for (name, text) in SOURCES {
        fs_err::write(source.join(name), text)?;
    }
    libuv::unpack_source(build, &uv)?;
    let (pyenv, cache) = (cx.made::<Pyenv>()?.folder, compiler_cache(cx)?);
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
    let mut configure = base(&environment::tool(&pyenv, "cmake"))
        .args(["-S", ".", "-B"])
        .arg(scratch.join("build"))
        .args(["-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release"])
        .arg(format!("-DTORCH_SOURCE={}", work.src().display()))
        .arg(format!("-DTORCH_GENERATED={}", work.build().display()))
        .arg(format!("-DUV_SOURCE={}", uv.display()))
        .arg(format!("-DCMAKE_C_FLAGS={flags}"))
        .arg(format!("-DCMAKE_CXX_FLAGS={flags}"));
    if let Target::Windows(mingw, _) = target {
        let changed = scratch.join("overlay");
        overlay(cx, work, &changed)?;
        configure = configure
            .arg("-DCMAKE_SYSTEM_NAME=Windows")
            .arg(format!("-DCMAKE_C_COMPILER={}", mingw.cc.display()))
            .arg(format!("-DCMAKE_CXX_COMPILER={}", mingw.cxx.display()))
            .arg(format!("-DCMAKE_RC_COMPILER={}", mingw.rc.display()))
            .arg(format!("-DOVERLAY={}", changed.display()))
            .arg(format!("-DOVERLAY_INCLUDE={}", cx.patch(MINGW_HEADERS)?.display()));
    }
    if let Some(program) = cache.program() {
        for language in ["C", "CXX"] {
            configure = configure.arg(format!("-DCMAKE_{language}_COMPILER_LAUNCHER={}", program.display()));
        }
    }
    configure.check("uvstore-configure", Some(log)).doing(|| "configuring uvstore".into())?;
    base(&environment::tool(&pyenv, "ninja"))
        .arg("-C")
        .arg(scratch.join("build"))
        .args(["-j", &ninja::jobs(build).to_string(), "uvstore"])
        .check("uvstore-build", Some(log))
        .doing(|| "compiling uvstore".into())?;
    Ok(())
}
