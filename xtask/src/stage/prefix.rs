//! Prefixes: sources that are used as they come, such as the BLAS, each under a name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::{Build, cuda};
use crate::error::{Context, Error, Result};
use crate::platform;
use crate::source::unpack;
use crate::store::{Key, KeyBuilder};

/// Name in events and in the store.
pub const STAGE: &str = "prefix";
const VERSION: u32 = 1;

/// Names of the prefixes that the recipe makes, sorted.
pub fn names(build: &Build<'_>) -> Vec<String> {
    let mut names: Vec<String> =
        build.recipe.source.iter().flat_map(|s| &s.into).filter_map(|p| p.prefix.clone()).collect();
    names.sort();
    names.dedup();
    names
}

/// The key of the prefix called `name`.
pub fn key(build: &Build<'_>, name: &str) -> Key {
    let mut key = KeyBuilder::new(STAGE, VERSION).json("epoch", &build.recipe.torch.epoch);
    for source in &build.recipe.source {
        for place in source.in_prefix(name) {
            key = key.text("source", build.lock.source.get(&source.name).map_or("", |l| &l.sha256)).json("into", place);
        }
    }
    key.finish()
}

/// Unpacks all prefixes, or finds them in the store. The one that a CUDA toolkit is made of is that
/// toolkit.
pub fn run(build: &Build<'_>) -> Result<BTreeMap<String, PathBuf>> {
    let mut out = BTreeMap::new();
    for name in names(build) {
        let dir = if name == cuda::PREFIX { cuda::run(build)? } else { one(build, &name)? };
        out.insert(name, dir);
    }
    if build.cuda_home.is_some() {
        out.insert(cuda::PREFIX.to_owned(), cuda::run(build)?);
    }
    Ok(out)
}

/// Unpacks the prefix called `name`, or finds it in the store. Each source is unpacked beside the others
/// at the same time, and its files are moved into place.
pub fn one(build: &Build<'_>, name: &str) -> Result<PathBuf> {
    build.stage(STAGE, &key(build, name), |pending| {
        let (out, scratch) = (pending.out(), pending.scratch()?);
        let bounds = unpack::Bounds { bytes: build.recipe.limits.unpacked, members: build.recipe.limits.members };
        let unpacked = build
            .recipe
            .source
            .par_iter()
            .filter(|s| s.in_prefix(name).next().is_some())
            .map(|source| {
                let own = scratch.join(&source.name);
                let targets: Vec<unpack::Target> = source
                    .in_prefix(name)
                    .map(|p| unpack::Target {
                        dir: own.join(p.folder.as_deref().unwrap_or("")),
                        strip: p.strip,
                        only: p.only.clone(),
                        keep: p.keep.clone(),
                    })
                    .collect();
                let (blob, epoch) = (build.blob(&source.name)?, build.recipe.torch.epoch);
                let files = unpack::unpack(&blob, &source.name, &targets, bounds, epoch)?.files;
                Ok((own, files))
            })
            .collect::<Result<Vec<_>>>()?;
        for (own, _) in &unpacked {
            merge(own, &out).doing(|| format!("putting the prefix '{name}' together"))?;
        }
        let places = build.recipe.source.iter().flat_map(|s| s.in_prefix(name));
        for (alias, of) in places.flat_map(|p| &p.alias) {
            fs_err::hard_link(out.join(of), out.join(alias))
                .map_err(Error::from)
                .doing(|| format!("giving {of} of the prefix '{name}' the further name {alias}"))?;
        }
        Ok(serde_json::json!({ "prefix": name, "files": unpacked.iter().map(|(_, files)| files).sum::<u64>() }))
    })
}

/// Moves the files below `from` to `to`. A file that is there already must have the same bytes, as the
/// empty `__init__.py` of several wheels has.
fn merge(from: &Path, to: &Path) -> Result<()> {
    for entry in walkdir::WalkDir::new(from) {
        let entry = entry.map_err(|e| Error::world("io", e.to_string()))?;
        let target = to.join(entry.path().strip_prefix(from).unwrap_or(entry.path()));
        if entry.file_type().is_dir() {
            fs_err::create_dir_all(&target)?;
        } else if !target.exists() {
            platform::rename(entry.path(), &target)?;
        } else if fs_err::read(&target)? != fs_err::read(entry.path())? {
            let name = target.strip_prefix(to).unwrap_or(&target).display().to_string();
            return Err(Error::misuse("prefix", format!("two sources have the file {name}, with other bytes"))
                .next("choose with 'only' and 'keep' which of them is meant"));
        }
    }
    Ok(())
}
