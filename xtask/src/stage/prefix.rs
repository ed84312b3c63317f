//! Prefixes: sources that are used as they come, such as the BLAS, each under a name.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::Build;
use crate::error::{Context, Error, Result};
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
        for place in source.into.iter().filter(|p| p.prefix.as_deref() == Some(name)) {
            key = key.text("source", build.lock.source.get(&source.name).map_or("", |l| &l.sha256)).json("into", place);
        }
    }
    key.finish()
}

/// Unpacks all prefixes, or finds them in the store.
pub fn run(build: &Build<'_>) -> Result<BTreeMap<String, PathBuf>> {
    let mut out = BTreeMap::new();
    for name in names(build) {
        let dir = build.stage(STAGE, &key(build, &name), |pending| {
            let bounds = unpack::Bounds { bytes: build.recipe.limits.unpacked, members: build.recipe.limits.members };
            let mut files = 0;
            for source in &build.recipe.source {
                let targets: Vec<unpack::Target> = source
                    .into
                    .iter()
                    .filter(|p| p.prefix.as_deref() == Some(name.as_str()))
                    .map(|p| unpack::Target {
                        dir: pending.out(),
                        strip: p.strip,
                        only: p.only.clone(),
                        keep: p.keep.clone(),
                    })
                    .collect();
                if !targets.is_empty() {
                    files += unpack::unpack(
                        &build.blob(&source.name)?,
                        &source.name,
                        &targets,
                        bounds,
                        build.recipe.torch.epoch,
                    )?
                    .files;
                }
            }
            let places = build.recipe.source.iter().flat_map(|s| &s.into);
            for (alias, of) in places.filter(|p| p.prefix.as_deref() == Some(name.as_str())).flat_map(|p| &p.alias) {
                fs_err::hard_link(pending.out().join(of), pending.out().join(alias))
                    .map_err(Error::from)
                    .doing(|| format!("giving {of} of the prefix '{name}' the further name {alias}"))?;
            }
            Ok(serde_json::json!({ "prefix": name, "files": files }))
        })?;
        out.insert(name, dir);
    }
    Ok(out)
}
