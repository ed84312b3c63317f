//! uvstore: the store of this very torch, with libuv and c10, as a small program that needs no torch:
//! a libuv rendezvous for builds that have none. Made of the store's own sources alone: nothing of
//! torch is configured, generated or compiled for it.

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::buildenv::Buildenv;
use super::libuv;
use crate::error::{Context, Error, Result};
use crate::platform;
use crate::recipe::{Coordinate, Patch, Placement};
use crate::source::{patch, unpack};
use crate::stage::build::Build;
use crate::stage::environment;
use crate::stage::locked;
use crate::stage::peers::Peer;
use crate::stage::step::{Cx, Done, Step};
use crate::stage::work::ninja;
use crate::store::{Parts, digest_file};
use crate::toolchain::Process;
use crate::toolchain::mingw::{Mingw, Wine};

/// The stage: a result for each system that the program can be made for.
pub struct Uvstore;

/// The program's own files, by their paths below its source folder.
pub const SOURCES: &[(&str, &str)] = &[
    ("CMakeLists.txt", include_str!("../uvstore/CMakeLists.txt")),
    ("main.cpp", include_str!("../uvstore/main.cpp")),
    ("net.cpp", include_str!("../uvstore/net.cpp")),
    ("net.h", include_str!("../uvstore/net.h")),
    ("numeric_names.h", include_str!("../uvstore/numeric_names.h")),
    ("tie.cpp", include_str!("../uvstore/tie.cpp")),
    ("tie.h", include_str!("../uvstore/tie.h")),
    ("include/no_tensors.h", include_str!("../uvstore/include/no_tensors.h")),
    ("include/ATen/ATen.h", include_str!("../uvstore/include/ATen/ATen.h")),
    ("include/ATen/core/Tensor.h", include_str!("../uvstore/include/ATen/core/Tensor.h")),
    ("include/ATen/core/ivalue.h", include_str!("../uvstore/include/ATen/core/ivalue.h")),
    ("include/torch/custom_class.h", include_str!("../uvstore/include/torch/custom_class.h")),
    ("python/sitecustomize.py", include_str!("../uvstore/python/sitecustomize.py")),
    ("python/uvstore.pth", include_str!("../uvstore/python/uvstore.pth")),
    ("python/uvstore/__init__.py", include_str!("../uvstore/python/uvstore/__init__.py")),
    ("python/uvstore/__main__.py", include_str!("../uvstore/python/uvstore/__main__.py")),
    ("python/uvstore/hook.py", include_str!("../uvstore/python/uvstore/hook.py")),
    ("licenses/uvstore/LICENSE-APACHE", include_str!("../../../../LICENSE-APACHE")),
    ("licenses/uvstore/LICENSE-MIT", include_str!("../../../../LICENSE-MIT")),
    ("licenses/gcc/COPYING3", include_str!("../uvstore/licenses/gcc/COPYING3")),
    ("licenses/gcc/COPYING.RUNTIME", include_str!("../uvstore/licenses/gcc/COPYING.RUNTIME")),
    ("licenses/glibc/COPYING.LIB", include_str!("../uvstore/licenses/glibc/COPYING.LIB")),
    ("licenses/glibc/LICENSES", include_str!("../uvstore/licenses/glibc/LICENSES")),
    ("licenses/mingw-w64/COPYING", include_str!("../uvstore/licenses/mingw-w64/COPYING")),
    (
        "licenses/mingw-w64/COPYING.MinGW-w64-runtime.txt",
        include_str!("../uvstore/licenses/mingw-w64/COPYING.MinGW-w64-runtime.txt"),
    ),
    ("licenses/winpthreads/COPYING", include_str!("../uvstore/licenses/winpthreads/COPYING")),
];

/// What of torch's tree the store is made of.
const PARTS: &[&str] =
    &["c10/", "torch/csrc/distributed/c10d/", "torch/headeronly/", "CMakeLists.txt", "LICENSE", "NOTICE"];

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

    /// The system it is for, as `std::env::consts::OS` names it.
    pub fn os(&self) -> &'static str {
        match self {
            Self::Host => std::env::consts::OS,
            Self::Windows(..) => "windows",
        }
    }

    /// The program's file name.
    pub fn file(&self) -> String {
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

/// What came out, what its own clients made of it, and how long it took.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// The program's file name.
    pub file: String,
    /// What `uvstore check` printed, against a server of the same program.
    pub check: serde_json::Value,
    /// Seconds of each step.
    pub steps: Vec<Took>,
}

/// One step of a build.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Took {
    /// What was done.
    pub name: String,
    /// Wall time in seconds.
    pub seconds: f64,
    /// CPU time of all processes, seconds.
    pub cpu: f64,
}

/// The source that is placed at `tree`.
fn source<'b>(build: &'b Build<'_>, tree: &str) -> Result<(&'b str, &'b Placement)> {
    let places = build.recipe.source.iter().flat_map(|s| s.into.iter().map(move |p| (s.name.as_str(), p)));
    places.into_iter().find(|(_, p)| p.tree.as_deref() == Some(tree)).ok_or_else(|| {
        Error::misuse("no-source", format!("the recipe {} has no source for '{tree}'", build.recipe.name))
    })
}

/// Whether the program draws in the source or package called `name`: what has to be fetched for it.
pub fn is_part(build: &Build<'_>, name: &str) -> bool {
    let placed = |tree| source(build, tree).is_ok_and(|(found, _)| found == name);
    let tool = |lock: &crate::recipe::PythonLock| {
        lock.build.iter().any(|l| matches!(&l.coordinate, Some(Coordinate::Pypi { name: tool, .. }) if tool == name))
    };
    placed(".")
        || placed("third_party/fmt")
        || name == build.recipe.libuv.source
        || build.python_lock().is_ok_and(tool)
        || locked::sources(&build.recipe).any(|package| package.name == name)
}

/// The recipe's patches to those files of torch that the program is made of.
fn patches<'b>(cx: &Cx<'b>) -> Result<Vec<&'b Patch>> {
    let mut found = Vec::new();
    for patch in &cx.build.recipe.patch {
        let ours = |name: &String| PARTS.iter().any(|part| name.starts_with(part));
        if cx.changed_by(&patch.file)?.iter().any(ours) {
            found.push(patch);
        }
    }
    Ok(found)
}

/// What a static program takes from this machine. A toolchain of locked packages may not be there yet; what it links is
/// in the compiler's identity.
fn linked(build: &Build<'_>) -> Result<Vec<String>> {
    if !cfg!(target_os = "linux") || build.compiler.locked.is_some() {
        return Ok(Vec::new());
    }
    let digest = |name| Ok(digest_file(&library(build, name)?)?.0);
    ["libc.a", "libstdc++.a", "libgcc.a"].into_iter().map(digest).collect()
}

/// Where the compiler finds the static library `name`.
fn library(build: &Build<'_>, name: &str) -> Result<PathBuf> {
    let ask = Process::new(&build.compiler.cxx).arg(format!("-print-file-name={name}")).hide(build.compiler.hidden());
    let found = ask.check("compiler", None)?;
    let path = PathBuf::from(found.text.trim());
    if path.is_absolute() {
        return Ok(path);
    }
    Err(Error::world("no-static-libc", format!("the compiler has no {name}, and uvstore is a static program"))
        .next("install it: `apt-get install libc6-dev` (Debian, Ubuntu), `dnf install glibc-static libstdc++-static` (Fedora)"))
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
        let build = cx.build;
        parts.json("parts", &PARTS);
        parts.text("torch", &build.recipe.torch.version);
        parts.text("product", env!("CARGO_PKG_VERSION"));
        parts.json("epoch", &build.recipe.torch.epoch);
        for name in [source(build, ".")?.0, source(build, "third_party/fmt")?.0, &build.recipe.libuv.source] {
            parts.digest(format!("source {name}"), build.locked(name));
        }
        for patch in patches(cx)? {
            cx.patch_input(&patch.file, parts)?;
            parts.json(format!("strip of {}", patch.file), &patch.strip);
        }
        let target = Target::called(build, cx.of)?;
        let Some((mingw, wine)) = target.tools()? else {
            parts.known_as("compiler", &build.compiler.identity(), &build.compiler.banner);
            parts.json("linked", &linked(build)?);
            return Ok(());
        };
        parts.text("mingw", mingw);
        parts.text("wine", wine);
        let patch = mingw_patch(build);
        cx.patch_input(&patch, parts).map_err(|_| {
            Error::misuse(
                "no-mingw-patch",
                format!("there is no patches/{patch}: the store of this torch was never compiled with mingw-w64"),
            )
            .next("choose a recipe of torch 2.6.0, or write that patch")
        })?;
        cx.patch_input(MINGW_HEADERS, parts)
    }

    fn run(cx: &Cx<'_>) -> Result<Record> {
        make(cx, &cx.scratch()?, &cx.out()?)
    }
}

/// The program of a result.
pub fn program(done: &Done<Record>) -> PathBuf {
    done.folder.join(&done.record.file)
}

fn make(cx: &Cx<'_>, scratch: &Path, out: &Path) -> Result<Record> {
    let (target, tools) = (Target::called(cx.build, cx.of)?, cx.made::<Buildenv>()?.folder);
    let mut steps = Vec::new();
    step(&mut steps, "unpack", || unpack_all(cx, scratch))?;
    let maker = Maker { cx, target: &target, tools: &tools, scratch, log: &out.join("build.log") };
    step(&mut steps, "configure", || maker.configure())?;
    step(&mut steps, "compile", || maker.compile())?;
    licenses(cx, &target, scratch, &out.join("licenses"))?;
    let file = target.file();
    let program = out.join(&file);
    fs_err::copy(scratch.join("build").join(&file), &program)?;
    platform::mark_executable(&program, true)?;
    let peer = target.peer(&program);
    let check = {
        let _turn = peer.turn()?;
        step(&mut steps, "check", || peer.check_itself())?
    };
    let shown: Vec<String> = steps.iter().map(|s| format!("{} {:.0} s", s.name, s.cpu)).collect();
    cx.build.events.note(format!("uvstore took this much CPU: {}", shown.join(", ")));
    Ok(Record { file, check, steps })
}

fn step<T>(steps: &mut Vec<Took>, name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    platform::check_cancelled()?;
    let (started, cpu) = (Instant::now(), platform::cpu_seconds());
    let result = work()?;
    let (seconds, cpu) = (started.elapsed().as_secs_f64(), platform::cpu_seconds() - cpu);
    steps.push(Took { name: name.into(), seconds, cpu });
    Ok(result)
}

/// Torch's parts, patched, to `torch`; fmt to `fmt`; libuv to `libuv`; the program's own files to `source`.
fn unpack_all(cx: &Cx<'_>, scratch: &Path) -> Result<()> {
    let build = cx.build;
    let bounds = unpack::Bounds { bytes: build.recipe.limits.unpacked, members: build.recipe.limits.members };
    let keep: Vec<String> = PARTS.iter().map(|&p| p.to_owned()).collect();
    for (tree, to, keep) in [(".", "torch", keep), ("third_party/fmt", "fmt", Vec::new())] {
        let (name, place) = source(build, tree)?;
        let target = unpack::Target { dir: scratch.join(to), strip: place.strip, only: place.only.clone(), keep };
        unpack::unpack(&build.blob(name)?, name, &[target], bounds, build.recipe.torch.epoch)?;
    }
    for p in patches(cx)? {
        patch::apply(&cx.patch(&p.file)?, &scratch.join("torch"), p.strip)?;
    }
    libuv::unpack_source(build, &scratch.join("libuv"))?;
    for (name, text) in SOURCES {
        let path = scratch.join("source").join(name);
        fs_err::create_dir_all(path.parent().unwrap_or(scratch))?;
        fs_err::write(path, with_version(text))?;
    }
    Ok(())
}

/// One of [`SOURCES`] as it is used: the package says which version it is.
pub fn with_version(text: &str) -> String {
    text.replace("__version__ = \"VERSION\"", concat!("__version__ = \"", env!("CARGO_PKG_VERSION"), "\""))
}

/// Licences of what is linked in, and what was linked.
fn licenses(cx: &Cx<'_>, target: &Target, scratch: &Path, to: &Path) -> Result<()> {
    for (name, folder) in [("pytorch", "torch"), ("fmt", "fmt"), ("libuv", "libuv")] {
        let source = scratch.join(folder);
        let text = ["LICENSE", "LICENSE.rst"].map(|n| source.join(n)).into_iter().find(|p| p.is_file());
        let text = text.ok_or_else(|| Error::world("license", format!("the source of {name} has no LICENSE")))?;
        fs_err::create_dir_all(to.join(name))?;
        fs_err::copy(text, to.join(name).join("LICENSE"))?;
        if source.join("NOTICE").is_file() {
            fs_err::copy(source.join("NOTICE"), to.join(name).join("NOTICE"))?;
        }
    }
    let runtime: &[&str] = match target {
        Target::Windows(..) => &["gcc", "mingw-w64", "winpthreads"],
        Target::Host if cfg!(target_os = "linux") => &["gcc", "glibc"],
        Target::Host => &[],
    };
    for (name, text) in SOURCES {
        let Some(name) = name.strip_prefix("licenses/") else { continue };
        if name.split('/').next().is_some_and(|of| of == "uvstore" || runtime.contains(&of)) {
            let path = to.join(name);
            fs_err::create_dir_all(path.parent().unwrap_or(to))?;
            fs_err::write(path, text)?;
        }
    }
    Ok(fs_err::write(to.join("README.txt"), about_linked(cx.build, target)?)?)
}

/// What is in the program beside the sources whose licences lie beside it, and how to have it with another C library.
fn about_linked(build: &Build<'_>, target: &Target) -> Result<String> {
    let runtime = match target {
        Target::Windows(mingw, _) => format!(
            "\
- the run-time of mingw-w64 (ZPL-2.1, and parts in the public domain or under licences like it) and winpthreads (MIT)
- GCC's libstdc++ and libgcc (GPL-3.0-or-later WITH GCC-exception-3.1), which came with
  {}
",
            mingw.banner()?
        ),
        Target::Host if cfg!(target_os = "linux") => format!(
            "\
- the C library (LGPL-2.1-or-later), which says of itself
  {}
- GCC's libstdc++ and libgcc (GPL-3.0-or-later WITH GCC-exception-3.1), which came with
  {}

You may change that C library and link the program with your own: `cargo xtask uvstore --wheel` of torchmill {} makes
the program from its sources, which the recipe of that PyTorch names by digest, with the C library that the compiler
has. The source of the library named above is that of the distribution's package of that version. Whoever passes this
program on does so under section 6 of the LGPL: with that source, or with an offer of it.
",
            glibc(build)?,
            build.compiler.banner,
            env!("CARGO_PKG_VERSION"),
        ),
        Target::Host => String::new(),
    };
    Ok(format!(
        "The program is made from uvstore's own files (MIT OR Apache-2.0), the store of PyTorch {} (BSD-3-Clause), fmt (MIT)
and libuv (MIT). Linked in statically:

{runtime}",
        build.recipe.torch.version
    ))
}

/// What the C library that is linked in says of itself.
fn glibc(build: &Build<'_>) -> Result<String> {
    const MARK: &[u8] = b"GNU C Library (";
    let bytes = fs_err::read(library(build, "libc.a")?)?;
    let said = memchr::memmem::find(&bytes, MARK).map(|at| &bytes[at..]);
    let line = said.and_then(|said| said.split(|b| *b == b'\n' || *b == 0).next());
    Ok(line.map_or_else(|| "nothing".into(), |line| String::from_utf8_lossy(line).trim().to_owned()))
}

/// Copies of the tree's files that the patch for mingw-w64 names, patched: no product is made of them.
fn overlay(cx: &Cx<'_>, torch: &Path, to: &Path) -> Result<()> {
    let patch_file = cx.patch(&mingw_patch(cx.build))?;
    for line in fs_err::read_to_string(&patch_file)?.lines() {
        if let Some(name) = line.strip_prefix("--- a/") {
            let copy = to.join(name);
            fs_err::create_dir_all(copy.parent().unwrap_or(to))?;
            fs_err::copy(torch.join(name), copy)?;
        }
    }
    patch::apply(&patch_file, to, 1).doing(|| "changing what mingw-w64 does not compile".into())
}

/// What both halves of a build read.
struct Maker<'m> {
    cx: &'m Cx<'m>,
    target: &'m Target,
    tools: &'m Path,
    scratch: &'m Path,
    log: &'m Path,
}

impl Maker<'_> {
    fn tool(&self, name: &str) -> Process {
        let hidden = match self.target {
            Target::Host => self.cx.build.compiler.hidden(),
            // mingw-w64 is the machine's, and so are its headers.
            Target::Windows(..) => Vec::new(),
        };
        Process::new(environment::tool(self.tools, name))
            .hide(hidden)
            .env("PATH", self.cx.build.tool_path(self.tools))
            .env("LC_ALL", "C.UTF-8")
            .env("TZ", "UTC")
            .env("HOME", self.scratch)
            .env("SOURCE_DATE_EPOCH", self.cx.build.recipe.torch.epoch.to_string())
            .env("CC", &self.cx.build.compiler.cc)
            .env("CXX", &self.cx.build.compiler.cxx)
            .cwd(self.scratch)
    }

    fn configure(&self) -> Result<()> {
        let here = |name: &str| self.scratch.join(name).display().to_string();
        let flags = format!("-ffile-prefix-map={}=/uvstore", self.scratch.display());
        let mut configure = self
            .tool("cmake")
            .args(["-S", "source", "-B", "build", "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release"])
            .arg(format!("-DTORCH_SOURCE={}", here("torch")))
            .arg(format!("-DTORCH_VERSION={}", self.cx.build.recipe.torch.version))
            .arg(format!("-DUVSTORE_VERSION={}", env!("CARGO_PKG_VERSION")))
            .arg(format!("-DFMT_SOURCE={}", here("fmt")))
            .arg(format!("-DUV_SOURCE={}", here("libuv")))
            .arg(format!("-DHOOK={}", here("source/python")))
            .arg(format!("-DCMAKE_C_FLAGS={flags}"))
            .arg(format!("-DCMAKE_CXX_FLAGS={flags}"));
        if let Target::Windows(mingw, _) = self.target {
            let changed = self.scratch.join("overlay");
            overlay(self.cx, &self.scratch.join("torch"), &changed)?;
            configure = configure
                .arg("-DCMAKE_SYSTEM_NAME=Windows")
                .arg(format!("-DCMAKE_C_COMPILER={}", mingw.cc.display()))
                .arg(format!("-DCMAKE_CXX_COMPILER={}", mingw.cxx.display()))
                .arg(format!("-DCMAKE_RC_COMPILER={}", mingw.rc.display()))
                .arg(format!("-DOVERLAY={}", changed.display()))
                .arg(format!("-DOVERLAY_INCLUDE={}", self.cx.patch(MINGW_HEADERS)?.display()));
        }
        configure.check("uvstore-configure", Some(self.log)).doing(|| "configuring uvstore".into())?;
        Ok(())
    }

    fn compile(&self) -> Result<()> {
        self.tool("ninja")
            .args(["-C", "build", "-j", &ninja::jobs(self.cx.build).to_string(), "uvstore"])
            .check("uvstore-build", Some(self.log))
            .doing(|| "compiling uvstore".into())?;
        Ok(())
    }
}
