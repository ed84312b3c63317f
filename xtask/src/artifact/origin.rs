//! What an artifact carries of its own making, so that whoever has nothing else can build it again:
//! the recipe, its lock, the patches, this tool's version, the toolchain.
//!
//! ```text
//! torchmill/
//!   build.json                what it was made with
//!   recipes/NAME.toml         the recipe, `extends` followed
//!   recipes/NAME.lock         every byte that it drew in
//!   patches/…                 patches and the injected CMake module
//! ```
//! In a wheel the folder stands in `dist-info`, in a bundle below `share`.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::json::{few_values, json_file};
use crate::error::{Error, Result};

/// The folder's name, in `dist-info` of the wheel and in `share` of the bundle.
pub const FOLDER: &str = "torchmill";
/// The file of [`Facts`] in the folder.
const FACTS: &str = "build.json";
/// Version of the format of `build.json`.
pub const SCHEMA_VERSION: u32 = 1;

/// The files of the folder, by path with `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// Path in the folder → bytes.
    pub files: BTreeMap<String, Vec<u8>>,
}

/// `build.json`: what a second build must be told beside recipe, lock and patches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// Version of this format.
    pub schema_version: u32,
    /// torchmill's version.
    pub torchmill: String,
    /// Name of the recipe.
    pub recipe: String,
    /// Python, such as `3.11`; `None` in a bundle, which knows none: every Python's build makes the same one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub python: Option<String>,
    /// Machine, such as `x86_64`.
    pub machine: String,
    /// Compiler, linker, C library, Python: versions and digests.
    pub toolchain: serde_json::Value,
}

impl Facts {
    /// What they name that is not what it should be, nor may become part of a path or be run: a recipe that is no name,
    /// a Python that is no version. They are believed before anybody's signature is.
    pub fn fault(&self) -> Option<String> {
        let name = &self.recipe;
        let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
        if name.is_empty() || !plain || name.starts_with('.') || name.ends_with(".toml") {
            return Some(format!("a recipe '{}'", name.escape_debug()));
        }
        let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let is_version = |text: &str| text.split_once('.').is_some_and(|(major, minor)| number(major) && number(minor));
        let python = self.python.as_deref().filter(|python| !is_version(python))?;
        Some(format!("a Python '{}'", python.escape_debug()))
    }

    /// The same without the Python that built it, for what holds nothing of it.
    #[must_use]
    pub fn without_python(mut self) -> Self {
        self.python = None;
        if let Some(toolchain) = self.toolchain.as_object_mut() {
            toolchain.remove("python");
        }
        self
    }
}

impl Origin {
    /// From what a build reads: facts, the recipe's normal form, the lock's text, patches by path.
    ///
    /// # Errors
    /// None that a user can cause: the facts do not turn into JSON.
    pub fn new(facts: &Facts, recipe: &str, lock: &str, patches: BTreeMap<String, Vec<u8>>) -> Result<Self> {
        let mut files = BTreeMap::from([
            (FACTS.to_owned(), json_file(facts)?),
            (format!("recipes/{}.toml", facts.recipe), recipe.as_bytes().to_vec()),
            (format!("recipes/{}.lock", facts.recipe), lock.as_bytes().to_vec()),
        ]);
        files.extend(patches.into_iter().map(|(path, bytes)| (format!("patches/{path}"), bytes)));
        Ok(Self { files })
    }

    /// What a bundle carries: the same for every Python.
    ///
    /// # Errors
    /// As [`facts`](Self::facts).
    pub fn without_python(&self) -> Result<Self> {
        let mut files = self.files.clone();
        files.insert(FACTS.to_owned(), json_file(&self.facts()?.without_python())?);
        Ok(Self { files })
    }

    /// What the files of `build.json` say.
    ///
    /// # Errors
    /// Bad input: there is no `build.json`, or it is of a newer format.
    pub fn facts(&self) -> Result<Facts> {
        let bad = |what: String| Error::misuse("origin", what).next("was this artifact made by torchmill?");
        let json = self.files.get(FACTS).ok_or_else(|| bad("the artifact has no torchmill/build.json".into()))?;
        few_values(json).map_err(|why| bad(format!("torchmill/build.json: {why}")))?;
        let value: serde_json::Value =
            serde_json::from_slice(json).map_err(|e| bad(format!("torchmill/build.json is no JSON: {e}")))?;
        match value["schema_version"].as_u64() {
            Some(v) if v <= u64::from(SCHEMA_VERSION) => {}
            Some(v) => {
                return Err(Error::misuse(
                    "origin-newer",
                    format!("torchmill/build.json has format {v}; this program reads {SCHEMA_VERSION}"),
                )
                .next("update torchmill"));
            }
            None => return Err(bad("torchmill/build.json states no schema_version".into())),
        }
        let facts: Facts = serde_json::from_value(value).map_err(|e| bad(format!("torchmill/build.json: {e}")))?;
        match facts.fault() {
            Some(fault) => Err(bad(format!("torchmill/build.json names {fault}"))),
            None => Ok(facts),
        }
    }

    /// Recipe, lock and patches, by path: what a second build runs.
    pub fn code(&self) -> impl Iterator<Item = (&String, &Vec<u8>)> {
        self.files.iter().filter(|(path, _)| *path != FACTS)
    }

    /// Digest of recipe, lock and patches: what a policy names a recipe by.
    pub fn recipe_sha256(&self) -> String {
        let mut hash = Sha256::new();
        for (path, bytes) in self.code() {
            hash.update(format!("{}  {path}\n", hex::encode(Sha256::digest(bytes))));
        }
        hex::encode(hash.finalize())
    }

    /// Writes the files below `folder`.
    ///
    /// # Errors
    /// If they cannot be written, or a path leaves the folder.
    pub fn write(&self, folder: &Path) -> Result<()> {
        for (path, bytes) in &self.files {
            let safe = path.split('/').all(|s| !s.is_empty() && s != "." && s != ".." && !s.contains(['\\', ':']));
            if !safe {
                return Err(Error::misuse(
                    "origin",
                    format!("the artifact has a file 'torchmill/{path}', which leaves the folder"),
                ));
            }
            let to = folder.join(path);
            fs_err::create_dir_all(to.parent().unwrap_or(folder))?;
            fs_err::write(to, bytes)?;
        }
        Ok(())
    }
}

/// Digest of a toolchain: what a policy names it by.
pub fn toolchain_sha256(toolchain: &serde_json::Value) -> String {
    // serde_json's maps are sorted, so the text is the same whoever writes it.
    hex::encode(Sha256::digest(toolchain.to_string()))
}
