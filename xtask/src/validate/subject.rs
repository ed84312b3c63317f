//! Candidate and baseline: from what the user named to a libtorch folder, a Python that has it, and
//! facts about both.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::artifact::audit::Artifact;
use crate::error::{Context, Error, Result};
use crate::inspect::{self, Depth, FileAt, Linkage};
use crate::source::{choice, http_agent, pypi, unpack};
use crate::stage::steps::fetch::Fetch;
use crate::stage::steps::testenv::Testenv;
use crate::stage::{Build, ensure, environment as python, stored};
use crate::store::{Key, KeyBuilder, digest_file};

/// Name in events and in the store.
const STAGE: &str = "subject";
const VERSION: u32 = 2;

/// A build under test.
#[derive(Debug, Clone)]
pub struct Subject {
    /// As the user named it, without its folder.
    pub name: String,
    /// The folder with `include` and `lib`.
    pub libtorch: PathBuf,
    /// A Python that imports this torch; a bundle has none.
    pub python: Option<PathBuf>,
    /// What that Python needs in PYTHONPATH.
    pub python_path: Option<PathBuf>,
    /// What is known of it.
    pub facts: Facts,
}

/// What is known of a build under test.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Facts {
    /// As the user named it, without its folder.
    pub name: String,
    /// SHA-256 of the wheel or bundle; of a folder, that of the library with the store.
    pub sha256: String,
    /// `torch.__version__`.
    pub version: String,
    /// Upstream's commit.
    pub commit: Option<String>,
    /// `torch.version.cuda`.
    pub cuda: Option<String>,
    /// Whether C++ strings are those of the C++11 ABI.
    pub cxx11_abi: bool,
    /// Whether the store has libuv, proved by `inspect`.
    pub libuv: bool,
    /// Which libuv, and how it is in.
    pub libuv_version: Option<String>,
    /// Process groups: `gloo`, `nccl`, `mpi`, `ucc`.
    pub backends: Vec<String>,
    /// The flags that its C++ was compiled with, as `inspect` reads them; `None` where they were not read.
    #[serde(default)]
    pub cxx_flags: Option<String>,
    /// What pip installed with it: `name version sha256`.
    pub packages: Vec<String>,
}

/// Turns what the user named into a [`Subject`]: `pypi:torch==2.12.1`, a wheel, a libtorch archive, or
/// a folder (libtorch, site-packages, an environment).
///
/// # Errors
/// Nothing is there, it is no torch, or it cannot be installed.
pub fn resolve(build: &Build<'_>, what: &str) -> Result<Subject> {
    if let Some(requirement) = what.strip_prefix("pypi:") {
        return from_index(build, requirement).doing(|| format!("making an environment with {what}"));
    }
    let path = Path::new(what);
    if path.is_dir() {
        return from_folder(build, path);
    }
    if !path.is_file() {
        return Err(Error::misuse("not-found", format!("there is no '{what}'"))
            .next("name a wheel, a libtorch archive, a folder, or pypi:torch==VERSION"));
    }
    if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("whl")) {
        from_wheel(build, path).doing(|| format!("making an environment with {what}"))
    } else {
        from_archive(build, path)
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

fn from_index(build: &Build<'_>, requirement: &str) -> Result<Subject> {
    let exact = requirement.split_once("==").filter(|(name, version)| *name == "torch" && !version.is_empty());
    if exact.is_none() {
        return Err(Error::misuse("requirement", format!("'pypi:{requirement}' is no exact version of torch"))
            .next("write pypi:torch==2.12.1"));
    }
    let key = environment_key(build)?.text("index", requirement).finish();
    environment(build, &key, &format!("pypi:{requirement}"), &python::TorchFrom::Index(requirement), None)
}

fn from_wheel(build: &Build<'_>, wheel: &Path) -> Result<Subject> {
    // What is no torch is told before pip says it in its own way.
    inspect::inspect(&file_name(wheel), &FileAt::new(fs_err::File::open(wheel)?.into_file())?, Depth::Verdict)?;
    let (sha256, _) = digest_file(wheel)?;
    let key = environment_key(build)?.text("wheel", &sha256).finish();
    environment(build, &key, &file_name(wheel), &python::TorchFrom::Wheel(wheel), Some(sha256))
        .map_err(|e| of_another_recipe(wheel, &build.recipe.name).into_iter().fold(e, Error::next))
}

/// What to do where `wheel` was built by another recipe than `recipe`, whose packages an environment is made of.
fn of_another_recipe(wheel: &Path, recipe: &str) -> Option<String> {
    let own = Artifact::open(wheel).ok()?.origin().ok()??.facts().ok()?.recipe;
    (own != recipe)
        .then(|| format!("--recipe {own}: the environment is made of the packages of {recipe}, and that built it"))
}

/// Why pip cannot install `torch`, if that is because the index has no wheel of it. An index that cannot be read is left to
/// pip, which says so in its own way.
fn absent(torch: &python::TorchFrom<'_>, python: &str) -> Option<Error> {
    let python::TorchFrom::Index(requirement) = torch else { return None };
    let (name, version) = requirement.split_once("==")?;
    let files = pypi::files(&http_agent(), name).ok()?;
    let wanted = choice::Wanted { name, version, platform: None, python: Some(python) };
    choice::choose(&files, wanted).err()
}

/// The part of an environment's key that all subjects have in common.
fn environment_key(build: &Build<'_>) -> Result<KeyBuilder> {
    let mut key = KeyBuilder::new(STAGE, VERSION)
        .text("python", &build.python.identity())
        .text("executable", &build.python.executable.to_string_lossy());
    for wheel in &build.python_lock()?.verify {
        key = key.text("package", &wheel.sha256);
    }
    Ok(key)
}

fn environment(
    build: &Build<'_>,
    key: &Key,
    name: &str,
    torch: &python::TorchFrom<'_>,
    sha256: Option<String>,
) -> Result<Subject> {
    let env = stored(build, STAGE, key, |pending| {
        if let Some(absent) = absent(torch, &build.python.minor()) {
            return Err(absent);
        }
        ensure::<Fetch>(build)?;
        let env = pending.out();
        let installed =
            python::with_torch(build, &ensure::<Testenv>(build)?.folder, &env, &pending.scratch()?, torch, None)?;
        let digest = |p: &python::InstalledPackage| {
            let hashes = p.download_info.archive_info.as_ref().map(|a| &a.hashes);
            hashes.and_then(|h| h.get("sha256")).cloned().unwrap_or_default()
        };
        let of_torch = installed.install.iter().find(|p| p.metadata.name == "torch").map(digest);
        let mut facts = facts(name, &env, sha256.or(of_torch).unwrap_or_default())?;
        facts.packages = installed
            .install
            .iter()
            .map(|p| format!("{} {} {}", p.metadata.name, p.metadata.version, digest(p)))
            .collect();
        Ok(facts)
    })?;
    let facts: Facts = build
        .store
        .record(STAGE, key)?
        .ok_or_else(|| Error::world("store", format!("the record of the environment of {name} cannot be read")))?;
    let libtorch = python::site_packages(&env, &build.python.minor()).join("torch");
    Ok(Subject { name: name.to_owned(), libtorch, python: Some(python::python(&env)), python_path: None, facts })
}

fn from_archive(build: &Build<'_>, archive: &Path) -> Result<Subject> {
    let name = file_name(archive);
    let (sha256, _) = digest_file(archive)?;
    let key = KeyBuilder::new(STAGE, VERSION).text("archive", &sha256).finish();
    let root = stored(build, STAGE, &key, |pending| {
        let bounds = unpack::Bounds { bytes: 64 << 30, members: 1 << 20 };
        let targets = [unpack::Target::all(pending.out())];
        unpack::unpack(archive, &name, &targets, bounds, build.recipe.torch.epoch)?;
        facts(&name, &libtorch_in(&pending.out()).ok_or_else(|| no_torch(&name))?, sha256)
    })?;
    let facts: Facts = build
        .store
        .record(STAGE, &key)?
        .ok_or_else(|| Error::world("store", format!("the record of {name} cannot be read")))?;
    let libtorch = libtorch_in(&root).ok_or_else(|| no_torch(&name))?;
    Ok(Subject { name, libtorch, python: None, python_path: None, facts })
}

fn from_folder(build: &Build<'_>, folder: &Path) -> Result<Subject> {
    let folder = std::path::absolute(folder)?;
    let name = folder.display().to_string();
    let libtorch = libtorch_in(&folder).ok_or_else(|| no_torch(&name))?;
    let store = ["libtorch_cpu.so", "libtorch_cpu.dylib", "torch_cpu.dll"]
        .iter()
        .map(|n| libtorch.join("lib").join(n))
        .find(|p| p.is_file())
        .ok_or_else(|| no_torch(&name))?;
    // A report is for others too: it names the folder, not where this machine has it.
    let facts = facts(&file_name(&folder), &folder, digest_file(&store)?.0)?;
    let has_python = libtorch.join("__init__.py").is_file();
    let own = python::python(&folder);
    let (python, python_path) = match (has_python, own.is_file()) {
        (false, _) => (None, None),
        (true, true) => (Some(own), None),
        (true, false) => (Some(build.python.executable.clone()), libtorch.parent().map(Path::to_owned)),
    };
    Ok(Subject { name, libtorch, python, python_path, facts })
}

/// The folder with `include` and `lib`: `root` itself, or where an environment has torch.
fn libtorch_in(root: &Path) -> Option<PathBuf> {
    let is = |p: &Path| p.join("lib").is_dir() && p.join("include/torch/csrc").is_dir();
    let mut places =
        vec![root.to_owned(), root.join("torch"), root.join("libtorch"), root.join("Lib/site-packages/torch")];
    let versions = std::fs::read_dir(root.join("lib")).into_iter().flatten().flatten();
    let mut site: Vec<_> = versions.map(|e| e.path().join("site-packages/torch")).collect();
    site.sort();
    places.extend(site);
    places.into_iter().find(|p| is(p))
}

fn no_torch(name: &str) -> Error {
    Error::misuse("no-torch", format!("'{name}' holds no libtorch with include/ and lib/"))
        .next("name a wheel, a libtorch archive or folder, an environment, or pypi:torch==VERSION")
}

fn facts(name: &str, folder: &Path, sha256: String) -> Result<Facts> {
    let report = inspect::inspect_folder(name, folder, Depth::Full)?;
    let backends = [
        ("gloo", report.backends.gloo == Some(true)),
        ("nccl", report.backends.nccl == Some(true)),
        ("mpi", report.backends.mpi == Some(true)),
        ("ucc", report.backends.ucc == Some(true)),
    ];
    let uv = report.uv.as_ref().map(|uv| {
        let linkage = if uv.linkage == Linkage::Static { "compiled in" } else { "a library of its own" };
        format!("{}, {linkage}", uv.version.as_deref().unwrap_or("version unknown"))
    });
    Ok(Facts {
        name: name.to_owned(),
        sha256,
        version: report.torch.version.clone().ok_or_else(|| {
            Error::misuse(
                "no-torch",
                format!("'{name}' does not say which torch it is (torch/version.py, build-version)"),
            )
        })?,
        commit: report.torch.commit.clone(),
        cuda: report.torch.cuda.clone(),
        cxx11_abi: report.torch.cxx11_abi.unwrap_or(true),
        libuv: report.libuv,
        libuv_version: uv,
        backends: backends.iter().filter(|(_, there)| *there).map(|(n, _)| (*n).to_owned()).collect(),
        cxx_flags: report.torch.cxx_flags.clone(),
        packages: Vec::new(),
    })
}
