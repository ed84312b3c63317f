//! fetch: everything that the lock names comes into the store.

use std::collections::BTreeMap;

use super::{Build, timing::timed};
use crate::error::{Error, Result};
use crate::event::Event;
use crate::recipe::{Coordinate, Locked, PythonLock};
use crate::source::{Fetcher, Want};
use crate::store::Blob;

/// Name in events.
pub const STAGE: &str = "fetch";

/// Fetches all sources of the recipe and the wheels for the build's Python. With `all_pythons`, the
/// wheels for every Python of the lock: what an air-gapped machine needs.
pub fn run(build: &Build<'_>, all_pythons: bool) -> Result<Vec<Blob>> {
    fetch(build, &wants(build, all_pythons)?)
}

fn fetch(build: &Build<'_>, wants: &[Want]) -> Result<Vec<Blob>> {
    let fetcher = Fetcher {
        store: build.store,
        events: build.events,
        offline: build.options.offline,
        root: &build.workspace.root,
    };
    let here = wants.iter().all(|w| w.expected.as_ref().is_some_and(|(d, s)| build.store.blob(d, *s).is_some()));
    if here {
        build.events.emit(Event::StageCached { stage: STAGE });
        return fetcher.fetch_all(wants);
    }
    timed(build, STAGE, "", || fetcher.fetch_all(wants))
}

/// Fetches what the recipe's CUDA toolkit is made of, and nothing else.
///
/// # Errors
/// A stale lock; what [`Fetcher::fetch_all`] says.
pub fn toolkit(build: &Build<'_>) -> Result<Vec<Blob>> {
    let mut wants = wants(build, false)?;
    let parts = super::cuda::parts(build);
    let names: Vec<&str> = parts.map(|s| s.name.as_str()).collect();
    wants.retain(|w| names.contains(&w.name.as_str()));
    fetch(build, &wants)
}

/// The wheels of the lock for this build's Python.
pub fn python_lock<'b>(build: &'b Build<'_>) -> Result<&'b PythonLock> {
    let (machine, minor) = (&build.python.machine, build.python.minor());
    build.lock.python.get(machine).and_then(|m| m.get(&minor)).ok_or_else(|| {
        Error::misuse(
            "python-not-locked",
            format!("the lock of {} has no packages for Python {minor} on {machine}", build.recipe.name),
        )
        .next("add it to python.machines or python.versions of the recipe, and run `cargo xtask lock`")
    })
}

/// Digests and sizes of all that [`run`] fetches.
///
/// # Errors
/// A stale lock.
pub fn digests(build: &Build<'_>) -> Result<Vec<(String, u64)>> {
    Ok(wants(build, false)?.into_iter().filter_map(|w| w.expected).collect())
}

fn wants(build: &Build<'_>, all_pythons: bool) -> Result<Vec<Want>> {
    let mut wants = Vec::new();
    for source in &build.recipe.source {
        let locked = build.lock.source.get(&source.name).ok_or_else(|| {
            Error::misuse("lock-stale", format!("the lock has no source '{}'", source.name))
                .next("run `cargo xtask lock`")
        })?;
        wants.push(Want {
            name: source.name.clone(),
            coordinates: source.coordinates.clone(),
            expected: Some((locked.sha256.clone(), locked.size)),
        });
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
    let pythons: Vec<&PythonLock> = if all_pythons {
        build.lock.python.values().flat_map(BTreeMap::values).collect()
    } else {
        vec![python_lock(build)?]
    };
    for python in pythons {
        python.build.iter().chain(&python.verify).for_each(&mut wheel);
    }
    Ok(wants)
}
