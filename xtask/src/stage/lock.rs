//! lock: finds out which bytes a recipe means, and writes them down.

use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::event::Sink;
use crate::recipe::{Coordinate, Draws, LOCK_VERSION, Lock, Locked, PythonLock, pinned};
use crate::source::pypi::{self, Platform};
use crate::source::unpack::Bounds;
use crate::source::{Fetcher, Want};
use crate::store::Store;

/// Resolves a recipe to a lock. What `old` knows already and still fits is taken over unseen.
///
/// # Errors
/// The world: a source or the package index does not answer. Bad input: no wheels meet the recipe's requirements.
pub fn resolve(
    recipe: Draws<'_>,
    old: Option<&Lock>,
    store: &Store,
    events: &dyn Sink,
    offline: bool,
    root: &Path,
) -> Result<Lock> {
    let bounds = Bounds { bytes: recipe.limits.unpacked, members: recipe.limits.members };
    let fetcher = Fetcher { store, events, offline, root, bounds };
    // A lock names its sources and not where they come from: once the recipe has changed, a source by the
    // same name may be another one. What this store fetched before is known by its coordinate.
    let unchanged = old.filter(|l| l.recipe == Lock::recipe_digest(recipe));
    let mut seen = Seen::read(store);
    let wants: Vec<Want> = recipe
        .source
        .iter()
        .map(|s| {
            let known = unchanged.and_then(|l| l.source.get(&s.name)).map(|l| (l.sha256.clone(), l.size));
            Want {
                name: s.name.clone(),
                coordinates: s.coordinates.clone(),
                expected: known.or_else(|| s.coordinates.first().and_then(|c| seen.get(c))),
            }
        })
        .collect();
    let blobs = fetcher.fetch_all(&wants)?;
    for (want, blob) in wants.iter().zip(&blobs) {
        // Of several coordinates nobody knows here which one answered.
        if let [only] = &want.coordinates[..] {
            seen.put(only, &blob.sha256, blob.size);
        }
    }
    seen.write(store);
    let source = wants
        .iter()
        .zip(blobs)
        .map(|(w, b)| (w.name.clone(), Locked { sha256: b.sha256, size: b.size, coordinate: None }))
        .collect();
    let mut choice = Choice { fetcher: &fetcher, old, pages: BTreeMap::new() };
    let mut python = BTreeMap::new();
    for machine in &recipe.python.machines {
        let mut wheels = BTreeMap::new();
        for minor in &recipe.python.versions {
            let platform = Platform { system: recipe.system, machine, minor };
            let locked = PythonLock {
                build: choice.wheels(&recipe.python.build, platform)?,
                verify: choice.wheels(&recipe.python.verify, platform)?,
            };
            wheels.insert(minor.clone(), locked);
        }
        python.insert(machine.clone(), wheels);
    }
    Ok(Lock { version: LOCK_VERSION, recipe: Lock::recipe_digest(recipe), source, python })
}

/// Digests of files of registries, whose content never changes, by coordinate.
#[derive(Default)]
struct Seen(BTreeMap<String, (String, u64)>);

impl Seen {
    fn read(store: &Store) -> Self {
        let text = std::fs::read(Self::path(store)).unwrap_or_default();
        Self(serde_json::from_slice(&text).unwrap_or_default())
    }

    fn write(&self, store: &Store) {
        if let Ok(text) = serde_json::to_vec(&self.0) {
            // What is not kept is fetched again.
            let _ = crate::store::write_atomically(&Self::path(store), &text);
        }
    }

    fn path(store: &Store) -> std::path::PathBuf {
        store.cache("coordinates").join("registries.json")
    }

    fn get(&self, coordinate: &Coordinate) -> Option<(String, u64)> {
        self.0.get(&coordinate.to_string()).cloned()
    }

    fn put(&mut self, coordinate: &Coordinate, sha256: &str, size: u64) {
        if matches!(coordinate, Coordinate::Pypi { .. } | Coordinate::Debian { .. } | Coordinate::Crate { .. }) {
            self.0.insert(coordinate.to_string(), (sha256.to_owned(), size));
        }
    }
}

struct Choice<'a> {
    fetcher: &'a Fetcher<'a>,
    old: Option<&'a Lock>,
    pages: BTreeMap<String, Vec<pypi::IndexFile>>,
}

impl Choice<'_> {
    fn wheels(&mut self, requirements: &[String], platform: Platform<'_>) -> Result<Vec<Locked>> {
        let environment = platform.environment()?;
        let mut wants = Vec::new();
        for text in requirements {
            let requirement = crate::recipe::requirement(text).map_err(|e| Error::misuse("recipe", e))?;
            if !requirement.evaluate_markers(&environment, &[]) {
                continue;
            }
            let Some(version) = pinned(&requirement) else { continue };
            wants.push(self.want(requirement.name.as_ref(), &version, platform)?);
        }
        let blobs = self.fetcher.fetch_all(&wants)?;
        Ok(wants
            .into_iter()
            .zip(blobs)
            .map(|(w, b)| Locked { sha256: b.sha256, size: b.size, coordinate: w.coordinates.into_iter().next() })
            .collect())
    }

    fn want(&mut self, name: &str, version: &str, platform: Platform<'_>) -> Result<Want> {
        let Platform { system, machine, minor } = platform;
        if let Some(known) = self.known(name, version, platform) {
            return Ok(known);
        }
        if self.fetcher.offline {
            return Err(Error::world(
                "offline",
                format!("--offline, and the old lock does not say which wheel of {name} {version} is meant"),
            )
            .next("run `cargo xtask lock` with network"));
        }
        if !self.pages.contains_key(name) {
            let agent = crate::source::http_agent();
            self.pages.insert(name.to_owned(), pypi::files(&agent, name)?);
        }
        let files = &self.pages[name];
        let wanted = pep440_rs::Version::from_str(version).ok();
        let of_version = files.iter().filter(|f| {
            let of_file = f.filename.parse().ok().and_then(|name: crate::wheel::Name| name.parsed_version());
            of_file.is_some() && of_file == wanted
        });
        let best = pypi::best(of_version, |f| crate::wheel::fit(&f.filename, minor, system, machine));
        let Some(file) = best else {
            return Err(Error::misuse(
                "no-wheel",
                format!(
                    "the package index has no wheel of {name} {version} that fits CPython {minor} on {machine} {}",
                    system.name()
                ),
            )
            .next("pin another version in the recipe, with a marker on python_version if need be"));
        };
        let coordinate =
            Coordinate::Pypi { name: name.to_owned(), version: version.to_owned(), file: file.filename.clone() };
        Ok(Want { name: name.to_owned(), coordinates: vec![coordinate], expected: None })
    }

    /// The wheel that the old lock chose, if it still is of that version.
    fn known(&self, wanted_name: &str, wanted_version: &str, platform: Platform<'_>) -> Option<Want> {
        let python = self.old?.python.get(platform.machine)?.get(platform.minor)?;
        python.build.iter().chain(&python.verify).find_map(|l| match &l.coordinate {
            Some(c @ Coordinate::Pypi { name, version, .. }) if name == wanted_name && version == wanted_version => {
                Some(Want {
                    name: name.clone(),
                    coordinates: vec![c.clone()],
                    expected: Some((l.sha256.clone(), l.size)),
                })
            }
            _ => None,
        })
    }
}
