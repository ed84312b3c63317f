//! The lock: every byte that a recipe draws in, by SHA-256 and size. Written by
//! `cargo xtask lock`, never by hand.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::model::{self, Limits, Recipe, Source, System};
use crate::error::{Error, Kind, Result};
use crate::platform::{MOST_LOCK, read_text};

/// The version of the lock format that this program reads and writes.
pub const LOCK_VERSION: u32 = 1;

/// A lock file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// Format version.
    pub version: u32,
    /// Digest of what the recipe asks for: see [`Lock::recipe_digest`].
    pub recipe: String,
    /// Sources by name.
    pub source: BTreeMap<String, Locked>,
    /// Wheels by machine (`x86_64`), interpreter (`3.11`) and purpose.
    #[serde(default)]
    pub python: BTreeMap<String, BTreeMap<String, PythonLock>>,
}

/// One file of known bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Locked {
    /// SHA-256, hexadecimal.
    pub sha256: String,
    /// Size in bytes.
    pub size: u64,
    /// For wheels: the coordinate.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub coordinate: Option<super::Coordinate>,
}

/// The wheels for one interpreter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PythonLock {
    /// Build environment.
    pub build: Vec<Locked>,
    /// Verify environment.
    pub verify: Vec<Locked>,
}

/// What of a recipe decides which bytes are drawn in.
#[derive(Debug, Clone, Copy)]
pub struct Draws<'a> {
    /// Name of the recipe.
    pub name: &'a str,
    /// Its sources.
    pub source: &'a [Source],
    /// Its Pythons and their packages.
    pub python: &'a model::Python,
    /// The system that wheels are chosen for.
    pub system: System,
    /// What its sources may unpack to; the lock does not hold it.
    pub limits: Limits,
}

impl<'a> From<&'a Recipe> for Draws<'a> {
    fn from(recipe: &'a Recipe) -> Self {
        Self {
            name: &recipe.name,
            source: &recipe.source,
            python: &recipe.python,
            system: recipe.system,
            limits: recipe.limits,
        }
    }
}

/// Whether `text` is a SHA-256 as this program writes it: 64 hexadecimal digits, lower case.
pub fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

impl Lock {
    /// Path of the lock beside the recipe at `recipe_path`.
    pub fn path_for(recipe_path: &Path) -> PathBuf {
        recipe_path.with_extension("lock")
    }

    /// Digest of everything in a recipe that decides which bytes are drawn in.
    pub fn recipe_digest<'a>(draws: impl Into<Draws<'a>>) -> String {
        let recipe = draws.into();
        let mut hash = Sha256::new();
        let mut field = |s: &str| {
            hash.update((s.len() as u64).to_le_bytes());
            hash.update(s.as_bytes());
        };
        for source in recipe.source {
            field(&source.name);
            for c in &source.coordinates {
                field(&c.to_string());
            }
        }
        field("python");
        for s in recipe.python.machines.iter().chain(&recipe.python.versions).chain(&recipe.python.build) {
            field(s);
        }
        field("verify");
        for s in &recipe.python.verify {
            field(s);
        }
        hex::encode(hash.finalize())
    }

    /// Reads the lock of a recipe, which stands at `recipe_path`, and checks that it fits.
    ///
    /// # Errors
    /// Bad input: there is no lock ([`Kind::LockMissing`]), it is of an earlier recipe ([`Kind::LockStale`]), or cannot
    /// be read.
    pub fn load<'a>(draws: impl Into<Draws<'a>>, recipe_path: &Path) -> Result<Self> {
        let recipe = draws.into();
        let path = Self::path_for(recipe_path);
        let relock = format!("run `cargo xtask lock --recipe {}`", recipe.name);
        if !path.exists() {
            return Err(Error::misuse(
                Kind::LockMissing.code(),
                format!("{} does not exist: nothing says which bytes this recipe means", path.display()),
            )
            .next(relock));
        }
        let text = read_text(&path, MOST_LOCK)
            .map_err(|e| Error::misuse("lock-unreadable", format!("{} cannot be read: {e}", path.display())))?;
        let lock = Self::parse(&text, &path, &relock)?;
        if lock.recipe != Self::recipe_digest(recipe) {
            return Err(Error::misuse(
                Kind::LockStale.code(),
                format!("{} is stale: the recipe's sources or packages changed after it was written", path.display()),
            )
            .next(relock));
        }
        Ok(lock)
    }

    /// Reads the text of the lock at `path`; `relock` is what makes it anew.
    ///
    /// # Errors
    /// Bad input: no lock, one of a newer format, or one whose digests are none.
    pub fn parse(text: &str, path: &Path, relock: &str) -> Result<Self> {
        let lock: Self = toml::from_str(text).map_err(|e| {
            // A newer format fails on its shape before its version can be compared.
            match toml::from_str::<toml::Table>(text).ok().and_then(|t| t.get("version")?.as_integer()) {
                Some(v) if v > i64::from(LOCK_VERSION) => Self::newer(path, v),
                _ => Error::misuse("lock", format!("{}: {}", path.display(), e.to_string().trim_end())).next(relock),
            }
        })?;
        if lock.version > LOCK_VERSION {
            return Err(Self::newer(path, i64::from(lock.version)));
        }
        // A digest becomes a path in the store.
        let locked = lock
            .source
            .values()
            .chain(lock.python.values().flat_map(BTreeMap::values).flat_map(|p| p.build.iter().chain(&p.verify)));
        let digests = locked.map(|l| &l.sha256).chain([&lock.recipe]);
        if let Some(bad) = digests.into_iter().find(|d| !is_sha256(d)) {
            return Err(Error::misuse(
                "lock",
                format!("{}: '{}' is no SHA-256 of 64 hexadecimal digits", path.display(), bad.escape_debug()),
            )
            .next(relock));
        }
        Ok(lock)
    }

    /// The wheels for one interpreter on one machine; `recipe` is the name of the recipe.
    ///
    /// # Errors
    /// Bad input: the lock has none for it.
    pub fn packages(&self, recipe: &str, machine: &str, minor: &str) -> Result<&PythonLock> {
        self.python.get(machine).and_then(|m| m.get(minor)).ok_or_else(|| {
            Error::misuse(
                "python-not-locked",
                format!("the lock of {recipe} has no packages for Python {minor} on {machine}"),
            )
            .next("add it to python.machines or python.versions of the recipe, and run `cargo xtask lock`")
        })
    }

    fn newer(path: &Path, version: i64) -> Error {
        Error::misuse(
            "lock-newer",
            format!("{} has format {version}; this program reads {LOCK_VERSION}", path.display()),
        )
        .next("update torchmill")
    }

    /// The text of the file.
    ///
    /// # Errors
    /// None that a user can cause.
    pub fn to_toml(&self, name: &str) -> Result<String> {
        let body = toml::to_string(self).map_err(|e| Error::world("lock-write", e.to_string()))?;
        Ok(format!("# Written by `cargo xtask lock --recipe {name}`. Not meant to be edited.\n{body}"))
    }
}
