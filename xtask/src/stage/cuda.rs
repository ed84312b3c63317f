//! cuda: the toolkit of a recipe with CUDA, made of its prefix `cuda`, tried before anything is compiled
//! with it. Recipes with the same packages share one.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use super::{Build, compile, prefix};
use crate::error::{Error, Result};
use crate::recipe::{Cuda, Source};
use crate::store::{Key, KeyBuilder, share_tree};
use crate::toolchain::cuda::{self, Toolkit, Versions};

/// Name in events and in the store.
pub const STAGE: &str = "cuda";
const VERSION: u32 = 1;

/// The prefix that the toolkit is made of.
pub const PREFIX: &str = "cuda";

/// The prefix that cuDNN lies in where it comes beside an installed toolkit.
const CUDNN: &str = "cudnn";

/// A toolkit of the machine, with what was found out about it in this run: it is digested and tried once.
#[derive(Debug)]
pub struct Installed {
    /// The toolkit.
    pub toolkit: Toolkit,
    identity: OnceLock<String>,
    versions: OnceLock<Versions>,
}

impl Installed {
    /// The one at `root`.
    ///
    /// # Errors
    /// There is none.
    pub fn at(root: &Path) -> Result<Self> {
        Ok(Self { toolkit: Toolkit::installed(root)?, identity: OnceLock::new(), versions: OnceLock::new() })
    }
}

/// The sources that a recipe's toolkit is made of, and what lies beside it.
pub fn parts<'b>(build: &'b Build<'_>) -> impl Iterator<Item = &'b Source> {
    build.recipe.source.iter().filter(|s| [PREFIX, CUDNN].iter().any(|name| s.in_prefix(name).next().is_some()))
}

/// The prefix with cuDNN, where the recipe has one.
fn cudnn(build: &Build<'_>) -> Result<Option<PathBuf>> {
    let has = prefix::names(build).iter().any(|name| name == CUDNN);
    has.then(|| prefix::one(build, CUDNN)).transpose()
}

/// The key: the packages, and the compiler that it was tried with.
pub fn key(build: &Build<'_>) -> Key {
    KeyBuilder::new(STAGE, VERSION)
        .key("prefix", &prefix::key(build, PREFIX))
        .text("compiler", &build.compiler.identity())
        .finish()
}

/// What decides what nvcc makes: the key, or the digests of an installed toolkit.
pub fn identity(build: &Build<'_>) -> Result<String> {
    match &build.cuda_home {
        Some(Installed { toolkit, identity, .. }) => {
            if let Some(known) = identity.get() {
                return Ok(known.clone());
            }
            let found = serde_json::to_string(&toolkit.identity()?).unwrap_or_default();
            Ok(identity.get_or_init(|| found).clone())
        }
        None => Ok(key(build).to_string()),
    }
}

/// Whether the recipe is built with NCCL.
fn has_nccl(build: &Build<'_>) -> bool {
    build.recipe.features.get("USE_NCCL").copied().unwrap_or(true)
}

/// What a toolkit's record holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    versions: Versions,
}

fn chosen<'b>(build: &'b Build<'_>) -> Result<&'b Cuda> {
    build.recipe.cuda.as_ref().ok_or_else(|| {
        Error::misuse("no-cuda", format!("the recipe {} has no CUDA", build.recipe.name))
            .next("choose one that has, such as torch-2.6.0-cu124")
    })
}

/// An error if the recipe has no CUDA, or if the disk has no room for its toolkit.
///
/// # Errors
/// As above.
pub fn demand(build: &Build<'_>) -> Result<()> {
    chosen(build)?;
    if build.cuda_home.is_some() || build.store.finished(STAGE, &key(build)).is_some() {
        return Ok(());
    }
    let what = format!("the CUDA toolkit of {}, packages and all,", build.recipe.name);
    compile::demand_room(build, space(build), &what)
}

/// Bytes that packages and toolkit take: libraries of GPU code unpack to 1.6 times their size.
fn space(build: &Build<'_>) -> u64 {
    let packages: u64 = parts(build).filter_map(|s| build.lock.source.get(&s.name)).map(|l| l.size).sum();
    packages * 26 / 10
}

/// Makes the toolkit, or finds it in the store. Returns its folder.
///
/// # Errors
/// As [`tried`].
pub fn run(build: &Build<'_>) -> Result<PathBuf> {
    Ok(tried(build)?.0)
}

/// The toolkit's folder, and what it said of itself: made and tried once a store; an installed one is tried
/// once a run.
///
/// # Errors
/// A part is missing; it does not compile, link or run a small program; or it has other versions than
/// the recipe says.
pub fn tried(build: &Build<'_>) -> Result<(PathBuf, Versions)> {
    let cuda = chosen(build)?;
    if let Some(Installed { toolkit, versions, .. }) = &build.cuda_home {
        let versions = match versions.get() {
            Some(known) => known.clone(),
            None => {
                let scratch = tempfile::tempdir()?;
                let beside = cudnn(build)?;
                let found = toolkit.check(cuda, has_nccl(build), beside.as_deref(), &build.compiler, scratch.path())?;
                versions.get_or_init(|| found).clone()
            }
        };
        return Ok((toolkit.root.clone(), versions));
    }
    let key = key(build);
    let folder = build.stage(STAGE, &key, |pending| {
        let (out, scratch) = (pending.out(), pending.scratch()?);
        share_tree(&prefix::one(build, PREFIX)?, &out)?;
        let toolkit = cuda::complete(&out, &build.compiler, &scratch)?;
        let beside = cudnn(build)?;
        let versions = toolkit.check(cuda, has_nccl(build), beside.as_deref(), &build.compiler, &scratch)?;
        Ok(Record { versions })
    })?;
    let record: Record = build
        .store
        .record(STAGE, &key)
        .ok_or_else(|| Error::world("store", "the record of the stage 'cuda' cannot be read"))?;
    Ok((folder, record.versions))
}
