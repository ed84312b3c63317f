//! tree: the assembled, patched source of PyTorch, as real files.

use std::path::PathBuf;

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
        Ok(serde_json::json!({
            "files": unpacked.iter().map(|u| u.files).sum::<u64>(),
            "bytes": unpacked.iter().map(|u| u.bytes).sum::<u64>(),
            "patches": build.recipe.patch.iter().map(|p| &p.file).collect::<Vec<_>>(),
        }))
    })
}
