//! tree: the assembled, patched source of PyTorch, as real files.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rayon::prelude::*;

use super::Build;
use crate::error::{Context, Result};
use crate::recipe::Placement;
use crate::source::{patch, unpack};
use crate::store::{Key, KeyBuilder, digest_file};

/// Name in events and in the store.
pub const STAGE: &str = "tree";
const VERSION: u32 = 1;

/// The key: sources that go into the tree with their placements, and patches by content.
pub fn key(build: &Build<'_>) -> Result<Key> {
    let mut key = KeyBuilder::new(STAGE, VERSION).json("epoch", &build.recipe.torch.epoch);
    for source in &build.recipe.source {
        let places: Vec<&Placement> = source.into.iter().filter(|p| p.tree.is_some()).collect();
        if !places.is_empty() {
            key =
                key.text("source", build.lock.source.get(&source.name).map_or("", |l| &l.sha256)).json("into", &places);
        }
    }
    for patch in &build.recipe.patch {
        let path = build.workspace.patches().join(&patch.file);
        key = key.text("patch", &digest_file(&path)?.0).json("strip", &patch.strip);
    }
    Ok(key.finish())
}

/// Assembles the tree, or finds it in the store.
pub fn run(build: &Build<'_>) -> Result<PathBuf> {
    let key = key(build)?;
    if let Some(root) = build.store.finished(STAGE, &key)
        && !is_intact(&root, build.recipe.torch.epoch)
    {
        build.events.warn("the tree in the store was changed (work folders share its files): it is made anew".into());
        build.store.forget(STAGE, &key)?;
    }
    build.stage(STAGE, &key, |pending| {
        let root = pending.out();
        let bounds = unpack::Bounds { bytes: build.recipe.limits.unpacked, members: build.recipe.limits.members };
        let unpacked = build
            .recipe
            .source
            .par_iter()
            .filter_map(|source| {
                let targets: Vec<unpack::Target> = source
                    .into
                    .iter()
                    .filter_map(|p| {
                        Some(unpack::Target {
                            dir: root.join(p.tree.as_ref()?),
                            strip: p.strip,
                            only: p.only.clone(),
                            keep: p.keep.clone(),
                        })
                    })
                    .collect();
                (!targets.is_empty()).then_some((source, targets))
            })
            .map(|(source, targets)| {
                let blob = build.blob(&source.name)?;
                unpack::unpack(&blob, &source.name, &targets, bounds, build.recipe.torch.epoch)
            })
            .collect::<Result<Vec<_>>>()?;
        for p in &build.recipe.patch {
            patch::apply(&build.workspace.patches().join(&p.file), &root, p.strip)
                .doing(|| format!("applying patches/{}", p.file))?;
        }
        let epoch = build.recipe.torch.epoch;
        for file in files(&root).filter(|f| !has_time(f, epoch)) {
            fs_err::OpenOptions::new().write(true).open(file.path())?.file().set_modified(time(epoch))?;
        }
        Ok(serde_json::json!({
            "files": unpacked.iter().map(|u| u.files).sum::<u64>(),
            "bytes": unpacked.iter().map(|u| u.bytes).sum::<u64>(),
            "patches": build.recipe.patch.iter().map(|p| &p.file).collect::<Vec<_>>(),
        }))
    })
}

fn files(root: &Path) -> impl Iterator<Item = walkdir::DirEntry> {
    walkdir::WalkDir::new(root).into_iter().flatten().filter(|e| e.file_type().is_file())
}

fn time(epoch: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(epoch).unwrap_or(0))
}

fn has_time(file: &walkdir::DirEntry, epoch: i64) -> bool {
    file.metadata().ok().and_then(|m| m.modified().ok()) == Some(time(epoch))
}

/// Whether nobody wrote to a file of the tree at `root`: all files have the recipe's time.
pub fn is_intact(root: &Path, epoch: i64) -> bool {
    files(root).all(|f| has_time(&f, epoch))
}
