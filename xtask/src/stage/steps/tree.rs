//! tree: the assembled, patched source of PyTorch, as real files.

use std::path::Path;
use std::time::{Duration, SystemTime};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::error::{Context, Result};
use crate::recipe::{Patch, Placement};
use crate::source::{patch, unpack};
use crate::stage::build::Build;
use crate::stage::drawn::Drawn;
use crate::stage::step::{Cx, Step};
use crate::store::Parts;

/// The stage that assembles the source.
pub struct Tree;

/// What is kept beside the tree.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// Files that were unpacked.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Patches that were applied.
    pub patches: Vec<String>,
}

impl Step for Tree {
    type Record = Record;
    const NAME: &'static str = "tree";
    const WHAT: &'static str = "the source, safely unpacked and patched";

    /// Sources that go into the tree with their placements, and patches by content.
    fn inputs(cx: &Cx<'_>, parts: &mut Parts) -> Result<()> {
        let build = cx.build;
        parts.json("epoch", &build.recipe.torch.epoch);
        for source in &build.recipe.source {
            let places: Vec<&Placement> = source.into.iter().filter(|p| p.tree.is_some()).collect();
            if !places.is_empty() {
                parts.digest(format!("source {}", source.name), build.locked(&source.name));
                parts.json(format!("place of {}", source.name), &places);
            }
        }
        for patch in &build.recipe.patch {
            cx.patch_input(&patch.file, parts)?;
            parts.json(format!("strip of {}", patch.file), &patch.strip);
        }
        Ok(())
    }

    /// Work folders share the tree's files: all of them have the recipe's time, unless somebody wrote to one.
    fn spoiled(build: &Build<'_>, folder: &Path) -> Option<String> {
        let intact = files(folder).all(|f| has_time(&f, build.recipe.torch.epoch));
        (!intact).then(|| "the tree in the store was changed (work folders share its files)".into())
    }

    fn run(cx: &Cx<'_>) -> Result<Record> {
        let (build, root) = (cx.build, cx.out()?);
        let unpacked = assemble(cx, &build.drawn(), &build.recipe.patch, &root)?;
        let epoch = build.recipe.torch.epoch;
        for file in files(&root).filter(|f| !has_time(f, epoch)) {
            fs_err::OpenOptions::new().write(true).open(file.path())?.file().set_modified(time(epoch))?;
        }
        Ok(Record {
            files: unpacked.iter().map(|u| u.files).sum(),
            bytes: unpacked.iter().map(|u| u.bytes).sum(),
            patches: build.recipe.patch.iter().map(|p| p.file.clone()).collect(),
        })
    }
}

/// Unpacks the sources that go into a tree at `root`, and applies the patches to it.
pub(super) fn assemble(
    cx: &Cx<'_>,
    drawn: &Drawn<'_>,
    patches: &[Patch],
    root: &Path,
) -> Result<Vec<unpack::Unpacked>> {
    let unpacked = drawn
        .source
        .par_iter()
        .filter_map(|source| {
            let targets = source.into.iter().filter_map(|p| target(p, root)).collect::<Vec<_>>();
            (!targets.is_empty()).then_some((source, targets))
        })
        .map(|(source, targets)| {
            unpack::unpack(&drawn.blob(&source.name)?, &source.name, &targets, drawn.bounds(), drawn.epoch)
        })
        .collect::<Result<Vec<_>>>()?;
    for p in patches {
        patch::apply(&cx.patch(&p.file)?, root, p.strip).doing(|| format!("applying patches/{}", p.file))?;
    }
    Ok(unpacked)
}

/// Where a source goes in the tree at `root`, if it goes there.
fn target(place: &Placement, root: &Path) -> Option<unpack::Target> {
    Some(unpack::Target {
        dir: root.join(place.tree.as_ref()?),
        strip: place.strip,
        only: place.only.clone(),
        keep: place.keep.clone(),
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
