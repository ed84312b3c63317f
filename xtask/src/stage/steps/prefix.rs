//! prefix: sources that are used as they come, such as the BLAS, each under a name.

use std::path::Path;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use torchmill_bytes::names::below;

use super::buildenv::Buildenv;
use crate::error::{Context, Error, Result};
use crate::platform;
use crate::source::unpack;
use crate::stage::build::Build;
use crate::stage::drawn::Drawn;
use crate::stage::step::{Cx, Step};
use crate::stage::work::CompilerCache;
use crate::store::Parts;

/// The stage: a result for each name that the recipe's sources go to.
pub struct Prefix;

/// What is kept beside a prefix.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// Name of the prefix in the recipe: `mkl`.
    pub prefix: String,
    /// Files that were unpacked.
    pub files: u64,
}

impl Step for Prefix {
    type Record = Record;
    const NAME: &'static str = "prefix";
    const WHAT: &'static str = "what is used as it comes: BLAS, ccache, CUDA's packages";

    fn of(build: &Build<'_>) -> Vec<String> {
        build.prefixes()
    }

    fn inputs(cx: &Cx<'_>, parts: &mut Parts) -> Result<()> {
        parts.json("epoch", &cx.build.recipe.torch.epoch);
        for source in &cx.build.recipe.source {
            for place in source.in_prefix(cx.of) {
                parts.digest(format!("source {}", source.name), cx.build.locked(&source.name));
                parts.json(format!("place of {}", source.name), place);
            }
        }
        Ok(())
    }

    /// Each source is unpacked beside the others at the same time, and its files are moved into place.
    fn run(cx: &Cx<'_>) -> Result<Record> {
        let files = assemble(&cx.build.drawn(), cx.of, &cx.out()?, &cx.scratch()?)?;
        Ok(Record { prefix: cx.of.to_owned(), files })
    }
}

/// Puts the prefix called `name` together at `out`, and returns how many files it has.
///
/// # Errors
/// A source is not there or cannot be unpacked; two of them have one file with other bytes.
pub fn assemble(drawn: &Drawn<'_>, name: &str, out: &Path, scratch: &Path) -> Result<u64> {
    let unpacked = drawn
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
            let blob = drawn.blob(&source.name)?;
            let files = unpack::unpack(&blob, &source.name, &targets, drawn.bounds(), drawn.epoch)?.files;
            Ok((own, files))
        })
        .collect::<Result<Vec<_>>>()?;
    for (own, _) in &unpacked {
        merge(own, out).doing(|| format!("putting the prefix '{name}' together"))?;
    }
    let places = drawn.source.iter().flat_map(|s| s.in_prefix(name));
    for (alias, of) in places.flat_map(|p| &p.alias) {
        let link = || -> Result<()> {
            let place = out.join(alias);
            fs_err::create_dir_all(place.parent().unwrap_or(out))?;
            Ok(fs_err::hard_link(out.join(of), place)?)
        };
        link().doing(|| format!("giving {of} of the prefix '{name}' the further name {alias}"))?;
    }
    Ok(unpacked.iter().map(|(_, files)| files).sum())
}

/// The compiler cache that a stage compiles through: it needs buildenv and the prefix `ccache` for it.
///
/// # Errors
/// The table does not say that the stage needs them.
pub fn compiler_cache(cx: &Cx<'_>) -> Result<CompilerCache> {
    Ok(CompilerCache::choose(cx.build, &cx.made::<Buildenv>()?.folder, &cx.folders::<Prefix>()))
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
            let name = below(to, &target);
            return Err(Error::misuse("prefix", format!("two sources have the file {name}, with other bytes"))
                .next("choose with 'only' and 'keep' which of them is meant"));
        }
    }
    Ok(())
}
