//! cuda: the toolkit of a recipe with CUDA, made of its prefix `cuda` (or the installed one that was asked for),
//! tried before anything is compiled with it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::prefix::Prefix;
use crate::error::{Error, Result};
use crate::platform::scratch::Scratch;
use crate::recipe::cuda::installed_at;
use crate::recipe::{Cuda as Wanted, Recipe, Source, System};
use crate::stage::build::{Build, CUDA, CUDNN};
use crate::stage::step::{Ahead, Cx, Step};
use crate::stage::work::room;
use crate::store::{Key, KeyBuilder, Parts, share_tree};
use crate::toolchain::cuda::{self, NESTED, TRIAL, TRIAL_ARCHITECTURE, TRIAL_WINDOWS, Toolkit, Versions};
use crate::toolchain::mingw::{Mingw, Wine};

/// The stage that makes a recipe's CUDA toolkit usable.
pub struct Cuda;

/// What is kept beside a toolkit.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// What it said of itself when it was tried.
    pub versions: Versions,
}

impl Step for Cuda {
    type Record = Record;
    const NAME: &'static str = "cuda";
    const WHAT: &'static str = "the toolkit, put together of its packages and tried";
    const EMBEDS: &'static [(&'static str, &'static str)] =
        &[("cuda/trial.cu", TRIAL), ("cuda/nested.cu", NESTED), ("cuda/trial_windows.c", TRIAL_WINDOWS)];

    fn of(build: &Build<'_>) -> Vec<String> {
        build.recipe.cuda.iter().map(|_| String::new()).collect()
    }

    /// An installed toolkit may change from run to run: it is tried in each.
    fn home(build: &Build<'_>) -> Option<PathBuf> {
        build.cuda_home.as_ref().map(|toolkit| toolkit.root.clone())
    }

    /// What it is tried with, and must be; its packages are the prefixes that it needs. For which GPUs a recipe compiles
    /// makes no other toolkit.
    fn inputs(cx: &Cx<'_>, parts: &mut Parts) -> Result<()> {
        let cuda = wanted(cx.build)?;
        parts.known_as("compiler", &cx.build.compiler.identity(), &cx.build.compiler.banner);
        parts.text("version", &cuda.version);
        parts.text("architecture", TRIAL_ARCHITECTURE);
        parts.json("packages", &cuda.packages().collect::<Vec<_>>());
        parts.json("nccl", &has_nccl(cx.build));
        if let Some((mingw, wine)) = foreign(cx.build)? {
            parts.text("mingw", &mingw.identity()?);
            parts.text("wine", &wine.version()?);
        }
        Ok(())
    }

    fn identity(build: &Build<'_>) -> Result<Option<String>> {
        identity(build).map(Some)
    }

    /// The disk has room for it.
    fn check(build: &Build<'_>, _ahead: &Ahead) -> Result<()> {
        if build.cuda_home.is_some() {
            return Ok(());
        }
        let what = format!("the CUDA toolkit of {}, packages and all,", build.recipe.name);
        room::check_room(build, space(build), &what)
    }

    fn run(cx: &Cx<'_>) -> Result<Record> {
        let build = cx.build;
        let beside = cx.made_of::<Prefix>(CUDNN)?.map(|done| done.folder);
        let beside = beside.as_deref();
        if let Some(toolkit) = &build.cuda_home {
            let scratch = Scratch::new()?;
            return Ok(Record { versions: tried(build, toolkit, beside, scratch.path())? });
        }
        let packages = cx.made_of::<Prefix>(CUDA)?.ok_or_else(|| no_toolkit(build))?;
        let (out, scratch) = (cx.out()?, cx.scratch()?);
        share_tree(&packages.folder, &out)?;
        let toolkit = cuda::complete(&out, &build.compiler, &scratch)?;
        Ok(Record { versions: tried_for(TRIAL_ARCHITECTURE, build, &toolkit, beside, &scratch)? })
    }
}

/// What a toolkit for Windows is tried with on another system.
fn foreign(build: &Build<'_>) -> Result<Option<(Mingw, Wine)>> {
    if build.recipe.system == System::here() {
        return Ok(None);
    }
    Ok(Some((Mingw::find()?, Wine::find(&build.store.cache("wine"))?)))
}

/// Tries `toolkit` in `scratch` for the first of the recipe's architectures; the programs stay there, and cuDNN may lie
/// `beside` it. On a machine with such a GPU, the argument `gpu` makes each program compute something whose result is
/// known.
///
/// # Errors
/// The recipe has no CUDA; a program does not compile, link or run, or says other versions than the recipe.
pub fn tried(build: &Build<'_>, toolkit: &Toolkit, beside: Option<&Path>, scratch: &Path) -> Result<Versions> {
    let first = wanted(build)?.architectures.first().map_or(TRIAL_ARCHITECTURE, String::as_str);
    tried_for(first, build, toolkit, beside, scratch)
}

/// The same for `architecture`.
fn tried_for(
    architecture: &str,
    build: &Build<'_>,
    toolkit: &Toolkit,
    beside: Option<&Path>,
    scratch: &Path,
) -> Result<Versions> {
    let cuda = wanted(build)?;
    match foreign(build)? {
        Some((mingw, wine)) => toolkit.check_in_wine(cuda, architecture, &mingw, &wine, scratch),
        None => toolkit.check(cuda, architecture, has_nccl(build), beside, &build.compiler, scratch),
    }
}

/// The prefix that cuDNN lies in, where it comes beside the toolkit.
pub fn beside(build: &Build<'_>) -> Option<&'static str> {
    parts(build).any(|source| source.in_prefix(CUDNN).next().is_some()).then_some(CUDNN)
}

/// `13.0.88`, as the nvcc of `toolkit` says it.
///
/// # Errors
/// The world: it does not run, or says no version; there is no Wine for one of Windows.
pub fn nvcc(build: &Build<'_>, toolkit: &Toolkit) -> Result<String> {
    match foreign(build)? {
        Some((_, wine)) => toolkit.version_in(&wine),
        None => toolkit.version(),
    }
}

/// An error where the recipe has CUDA, brings no toolkit, and no installed one was named.
///
/// # Errors
/// That.
pub fn demand(build: &Build<'_>) -> Result<()> {
    let is_there = build.recipe.cuda.is_none() || build.cuda_home.is_some() || brings_toolkit(&build.recipe);
    if is_there { Ok(()) } else { Err(no_toolkit(build)) }
}

/// Whether a recipe's toolkit is among its sources; else it is an installed one, which has to be named.
pub fn brings_toolkit(recipe: &Recipe) -> bool {
    recipe.source.iter().any(|source| source.in_prefix(CUDA).next().is_some())
}

fn no_toolkit(build: &Build<'_>) -> Error {
    let version = build.recipe.cuda.as_ref().map_or("", |cuda| cuda.version.as_str());
    let home = installed_at(version, build.recipe.system);
    Error::misuse(
        "no-toolkit",
        format!("the recipe {} brings no CUDA toolkit, and no installed one was named", build.recipe.name),
    )
    .next(format!("install CUDA {version} with its cuDNN and NCCL, and name it: --cuda-home {home}"))
}

/// The sources that a recipe's toolkit is made of, and what lies beside it.
fn parts<'b>(build: &'b Build<'_>) -> impl Iterator<Item = &'b Source> {
    build.recipe.source.iter().filter(|s| [CUDA, CUDNN].iter().any(|name| s.in_prefix(name).next().is_some()))
}

/// Whether a toolkit is made of the source `name`: all that has to be fetched for it.
pub fn is_part(build: &Build<'_>, name: &str) -> bool {
    parts(build).any(|source| source.name == name)
}

/// What decides what nvcc makes: packages and compiler, or the digests of an installed toolkit. It stands in
/// artifacts, so it is made of the same as ever, whatever the key of this stage is made of.
///
/// # Errors
/// An installed toolkit cannot be read.
pub fn identity(build: &Build<'_>) -> Result<String> {
    if let Some(known) = build.cuda_identity.get() {
        return Ok(known.clone());
    }
    let found = match &build.cuda_home {
        Some(toolkit) => serde_json::to_string(&toolkit.identity()?).unwrap_or_default(),
        None => KeyBuilder::new(CUDA, 1)
            .key("prefix", &packages(build))
            .text("compiler", &build.compiler.identity())
            .finish()
            .to_string(),
    };
    Ok(build.cuda_identity.get_or_init(|| found).clone())
}

/// A digest of the packages that the toolkit is made of, and how.
fn packages(build: &Build<'_>) -> Key {
    let mut key = KeyBuilder::new("prefix", 1).json("epoch", &build.recipe.torch.epoch);
    for source in &build.recipe.source {
        for place in source.in_prefix(CUDA) {
            key = key.text("source", build.locked(&source.name)).json("into", place);
        }
    }
    key.finish()
}

/// Whether the recipe is built with NCCL.
fn has_nccl(build: &Build<'_>) -> bool {
    build.recipe.features.get("USE_NCCL").copied().unwrap_or(true)
}

/// What the recipe says of CUDA.
///
/// # Errors
/// The recipe has no CUDA.
pub fn wanted<'b>(build: &'b Build<'_>) -> Result<&'b Wanted> {
    build.recipe.cuda.as_ref().ok_or_else(|| {
        Error::misuse("no-cuda", format!("the recipe {} has no CUDA", build.recipe.name))
            .next("choose one that has, such as torch-2.12.1-cu130")
    })
}

/// Bytes that packages and toolkit take: libraries of GPU code unpack to 1.6 times their size.
fn space(build: &Build<'_>) -> u64 {
    let packages: u64 = parts(build).filter_map(|s| build.lock.source.get(&s.name)).map(|l| l.size).sum();
    packages * 26 / 10
}
