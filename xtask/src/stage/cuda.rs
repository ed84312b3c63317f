//! cuda: the toolkit of a recipe with CUDA, made of its prefix `cuda`, tried before anything is compiled
//! with it. Recipes with the same packages share one.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Build, prefix};
use crate::error::{Error, Result};
use crate::platform;
use crate::recipe::Cuda;
use crate::store::{Key, KeyBuilder, share_tree};
use crate::toolchain::cuda::{self, Versions};

/// Name in events and in the store.
pub const STAGE: &str = "cuda";
const VERSION: u32 = 1;

/// The prefix that the toolkit is made of.
pub const PREFIX: &str = "cuda";

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
        Some(toolkit) => Ok(serde_json::to_string(&toolkit.identity()?).unwrap_or_default()),
        None => Ok(key(build).to_string()),
    }
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
    let Some(free) = platform::free_space(build.store.root()) else { return Ok(()) };
    let need = space(build);
    if free >= need {
        return Ok(());
    }
    Err(Error::world(
        "disk-space",
        format!(
            "the store {} has {} MiB free; the CUDA toolkit of {} needs about {} MiB, packages and all",
            build.store.root().display(),
            free >> 20,
            build.recipe.name,
            need >> 20
        ),
    )
    .next("free disk space, run `cargo xtask clean`, or put the store elsewhere with --store DIR"))
}

/// Bytes that packages and toolkit take: libraries of GPU code unpack to 1.6 times their size.
fn space(build: &Build<'_>) -> u64 {
    let packages: u64 = build
        .recipe
        .source
        .iter()
        .filter(|s| s.into.iter().any(|p| p.prefix.as_deref() == Some(PREFIX)))
        .filter_map(|s| build.lock.source.get(&s.name))
        .map(|l| l.size)
        .sum();
    packages * 26 / 10
}

/// What the toolkit said of itself.
///
/// # Errors
/// It was not made yet.
pub fn versions(build: &Build<'_>) -> Result<Versions> {
    match &build.cuda_home {
        Some(toolkit) => toolkit.check(chosen(build)?, &build.compiler, tempfile::tempdir()?.path()),
        None => build
            .store
            .record::<Record>(STAGE, &key(build))
            .map(|r| r.versions)
            .ok_or_else(|| Error::world("store", "the record of the stage 'cuda' cannot be read")),
    }
}

/// Makes the toolkit, or finds it in the store; an installed one is tried each time.
///
/// # Errors
/// A part is missing; it does not compile, link or run a small program; or it has other versions than
/// the recipe says.
pub fn run(build: &Build<'_>) -> Result<PathBuf> {
    let cuda = chosen(build)?;
    if let Some(toolkit) = &build.cuda_home {
        let scratch = tempfile::tempdir()?;
        toolkit.check(cuda, &build.compiler, scratch.path())?;
        return Ok(toolkit.root.clone());
    }
    let key = key(build);
    if build.store.finished(STAGE, &key).is_some() {
        // Without a look at what it was made of, which may be gone.
        return build.stage(STAGE, &key, |_| Ok(()));
    }
    let unpacked = prefix::one(build, PREFIX)?;
    build.stage(STAGE, &key, |pending| {
        let (out, scratch) = (pending.out(), pending.scratch()?);
        share_tree(&unpacked, &out)?;
        let toolkit = cuda::complete(&out, &build.compiler, &scratch)?;
        let versions = toolkit.check(cuda, &build.compiler, &scratch)?;
        Ok(Record { versions })
    })
}
