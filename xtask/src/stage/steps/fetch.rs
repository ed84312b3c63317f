//! fetch: everything that the lock names comes into the store.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::recipe::{Coordinate, Locked, PythonLock};
use crate::source::unpack::Bounds;
use crate::source::{Fetcher, Want};
use crate::stage::build::{Build, Downloads};
use crate::stage::step::{Cx, Step};
use crate::store::{Blob, Parts};

/// The stage: all sources of the recipe and the wheels for the build's Python, or what
/// [`crate::stage::Options::downloads`] says.
pub struct Fetch;

impl Step for Fetch {
    type Record = Vec<Blob>;
    const NAME: &'static str = "fetch";
    const WHAT: &'static str = "everything that the lock names, by digest";

    fn home(build: &Build<'_>) -> Option<PathBuf> {
        Some(build.store.root().to_owned())
    }

    fn is_there(build: &Build<'_>, planning: bool) -> Result<bool> {
        let absent = if planning {
            missing(build)?
        } else {
            absent(build, |digest, size| Ok(build.store.blob(digest, size)?.is_some()))?
        };
        Ok(absent.is_empty())
    }

    /// None: what it brings is judged by its digest, and in the keys of those who read it.
    fn inputs(_cx: &Cx<'_>, _parts: &mut Parts) -> Result<()> {
        Ok(())
    }

    fn run(cx: &Cx<'_>) -> Result<Vec<Blob>> {
        let build = cx.build;
        let (store, events, offline) = (build.store, build.events, build.options.offline);
        Fetcher { store, events, offline, root: &build.workspace.root, bounds: bounds(build) }.fetch_all(&wants(build)?)
    }
}

/// Name and size of what has to be fetched, as far as that can be told without reading what is there.
///
/// # Errors
/// A stale lock.
pub fn missing(build: &Build<'_>) -> Result<Vec<(String, u64)>> {
    absent(build, |digest, size| Ok(build.store.has_blob(digest, size)))
}

fn absent(build: &Build<'_>, is_there: impl Fn(&str, u64) -> Result<bool>) -> Result<Vec<(String, u64)>> {
    let mut missing = Vec::new();
    for w in wants(build)? {
        let there = w.expected.as_ref().map_or(Ok(false), |(digest, size)| is_there(digest, *size))?;
        if !there {
            missing.push((w.name, w.expected.map_or(0, |(_, size)| size)));
        }
    }
    Ok(missing)
}

/// Digests and sizes of all that is fetched.
///
/// # Errors
/// A stale lock.
pub fn digests(build: &Build<'_>) -> Result<Vec<(String, u64)>> {
    Ok(wants(build)?.into_iter().filter_map(|w| w.expected).collect())
}

/// What one source may have: as the recipe says that allows the most, of the torch and its companions. Each holds its own
/// to less when it is unpacked.
fn bounds(build: &Build<'_>) -> Bounds {
    let besides = build.companions.values().map(|beside| build.drawn_beside(beside).bounds());
    besides.fold(build.bounds(), |most, of| Bounds {
        bytes: most.bytes.max(of.bytes),
        members: most.members.max(of.members),
    })
}

fn wants(build: &Build<'_>) -> Result<Vec<Want>> {
    let mut wants = Vec::new();
    let besides = build.companions.values().map(|beside| (&beside.recipe.source, &beside.lock));
    for (sources, lock) in std::iter::once((&build.recipe.source, &build.lock)).chain(besides) {
        for source in sources {
            let locked = lock.source.get(&source.name).ok_or_else(|| {
                Error::misuse("lock-stale", format!("the lock has no source '{}'", source.name))
                    .next("run `cargo xtask lock`")
            })?;
            wants.push(Want {
                name: source.name.clone(),
                coordinates: source.coordinates.clone(),
                expected: Some((locked.sha256.clone(), locked.size)),
            });
        }
    }
    let mut wheel = |locked: &Locked| {
        if let Some(coordinate) = &locked.coordinate
            && !wants.iter().any(|w| w.expected.as_ref().is_some_and(|(d, _)| *d == locked.sha256))
        {
            let name = match coordinate {
                Coordinate::Pypi { name, .. } => name.clone(),
                other => other.file_name(),
            };
            wants.push(Want {
                name,
                coordinates: vec![coordinate.clone()],
                expected: Some((locked.sha256.clone(), locked.size)),
            });
        }
    };
    let mut pythons: Vec<&PythonLock> = Vec::new();
    if matches!(build.options.downloads, Downloads::AllPythons) {
        let locks = std::iter::once(&build.lock).chain(build.companions.values().map(|beside| &beside.lock));
        pythons.extend(locks.flat_map(|lock| lock.python.values()).flat_map(BTreeMap::values));
    } else {
        pythons.push(build.python_lock()?);
        for beside in build.companions.values() {
            pythons.push(build.packages_beside(beside)?);
        }
    }
    for python in pythons {
        python.build.iter().chain(&python.verify).for_each(&mut wheel);
    }
    if let Downloads::Only(takes) = build.options.downloads {
        wants.retain(|w| takes(build, &w.name));
    }
    Ok(wants)
}
