//! fetch: everything that the lock names comes into the store.

use std::time::Instant;

use super::Build;
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
    let wants = wants(build, all_pythons)?;
    let fetcher = Fetcher {
        store: build.store,
        events: build.events,
        offline: build.options.offline,
        root: &build.workspace.root,
    };
    let here = wants.iter().all(|w| w.expected.as_ref().is_some_and(|(d, s)| build.store.blob(d, *s).is_some()));
    if here {
        build.events.emit(Event::StageCached { stage: STAGE });
        return fetcher.fetch_all(&wants);
    }
    let started = Instant::now();
    build.events.emit(Event::StageStarted { stage: STAGE });
    let blobs = fetcher.fetch_all(&wants)?;
    build.events.emit(Event::StageFinished { stage: STAGE, seconds: started.elapsed().as_secs_f64() });
    Ok(blobs)
}

/// The wheels of the lock for this build's Python.
pub fn python_lock<'b>(build: &'b Build<'_>) -> Result<&'b PythonLock> {
    build.lock.python.get(&build.python.minor()).ok_or_else(|| {
        Error::misuse(
            "python-not-locked",
            format!("the lock of {} has no packages for Python {}", build.recipe.name, build.python.minor()),
        )
        .next("run `cargo xtask lock`")
    })
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
    let pythons: Vec<&PythonLock> =
        if all_pythons { build.lock.python.values().collect() } else { vec![python_lock(build)?] };
    for python in pythons {
        python.build.iter().chain(&python.verify).for_each(&mut wheel);
    }
    Ok(wants)
}
