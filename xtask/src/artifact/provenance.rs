//! Where an artifact comes from: an in-toto statement (v1) with SLSA provenance (v1). It holds no
//! time and no run number: whoever rebuilds the artifact writes the same statement.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::json::few_values;
use super::manifest::Manifest;
use super::origin::{Facts, SCHEMA_VERSION, toolchain_sha256};
use crate::error::{Error, Result};
use crate::toolchain::minor_of;

/// in-toto's type of a statement.
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// SLSA's type of the predicate.
pub const PREDICATE_TYPE: &str = "https://slsa.dev/provenance/v1";
/// What the parameters of `buildDefinition` mean: docs/provenance.md.
pub const BUILD_TYPE: &str = "https://github.com/torchmill/torchmill/blob/main/docs/provenance.md#v1";
/// Who builds where nobody else is named.
pub const BUILDER: &str = "https://github.com/torchmill/torchmill";

/// An in-toto statement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Statement {
    /// Always [`STATEMENT_TYPE`]: in-toto Statement, version 1.
    #[serde(rename = "_type")]
    pub kind: String,
    /// The files that it is about.
    pub subject: Vec<Subject>,
    /// Always [`PREDICATE_TYPE`]: what the predicate is to be read as.
    #[serde(rename = "predicateType")]
    pub predicate_type: String,
    /// What is said of them.
    pub predicate: Value,
}

/// A file by name and digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// File name, without a folder.
    pub name: String,
    /// Algorithm → digest, hexadecimal.
    pub digest: BTreeMap<String, String>,
}

impl Statement {
    /// About `files` (name → SHA-256) made as `manifest` says, from the recipe of this digest.
    pub fn new(manifest: &Manifest, recipe_sha256: &str, files: &BTreeMap<String, String>) -> Self {
        let digest = |sha256: &str| BTreeMap::from([("sha256".to_owned(), sha256.to_owned())]);
        let dependency = |name: &str, uris: &[String], sha256: &str| {
            let mut d = json!({ "name": name, "digest": digest(sha256) });
            if let Some(uri) = uris.first() {
                d["uri"] = uri.clone().into();
            }
            d
        };
        let dependencies: Vec<Value> = manifest
            .sources
            .iter()
            .chain(&manifest.build_packages)
            .map(|(name, input)| dependency(name, &input.coordinates, &input.sha256))
            .chain(manifest.patches.iter().map(|(name, sha256)| dependency(&format!("patches/{name}"), &[], sha256)))
            .collect();
        Self {
            kind: STATEMENT_TYPE.into(),
            subject: files
                .iter()
                .map(|(name, sha256)| Subject { name: name.clone(), digest: digest(sha256) })
                .collect(),
            predicate_type: PREDICATE_TYPE.into(),
            predicate: json!({
                "buildDefinition": {
                    "buildType": BUILD_TYPE,
                    "externalParameters": {
                        "recipe": { "name": manifest.recipe, "sha256": recipe_sha256 },
                        "python": manifest.toolchain["python"]["version"],
                        "machine": manifest.toolchain["python"]["machine"],
                    },
                    "internalParameters": {
                        "key": manifest.key,
                        "epoch": manifest.epoch,
                        "toolchain": { "sha256": toolchain_sha256(&manifest.toolchain), "is": manifest.toolchain },
                    },
                    "resolvedDependencies": dependencies,
                },
                "runDetails": {
                    "builder": { "id": BUILDER, "version": { "torchmill": env!("CARGO_PKG_VERSION") } },
                },
            }),
        }
    }

    /// Reads a statement.
    ///
    /// # Errors
    /// Bad input: no statement, or one of another type or predicate.
    pub fn parse(bytes: &[u8], whence: &str) -> Result<Self> {
        let bad = |what: String| Error::misuse("statement", format!("{whence}: {what}"));
        few_values(bytes).map_err(bad)?;
        let s: Self = serde_json::from_slice(bytes).map_err(|e| bad(format!("no in-toto statement: {e}")))?;
        if s.kind != STATEMENT_TYPE {
            return Err(bad(format!("the statement is of type '{}'; {STATEMENT_TYPE} is read here", s.kind)));
        }
        if s.predicate_type != PREDICATE_TYPE {
            return Err(bad(format!("its predicate is '{}'; {PREDICATE_TYPE} is read here", s.predicate_type)));
        }
        let mut names = std::collections::BTreeSet::new();
        if let Some(twice) = s.subject.iter().find(|subject| !names.insert(subject.name.as_str())) {
            return Err(bad(format!("it names '{}' twice", twice.name.escape_debug())));
        }
        Ok(s)
    }

    /// SHA-256 that it states for the file `name`.
    pub fn digest_of(&self, name: &str) -> Option<&str> {
        self.subject.iter().find(|s| s.name == name)?.digest.get("sha256").map(String::as_str)
    }

    /// A text of the predicate, by JSON pointer.
    fn text(&self, pointer: &str) -> &str {
        self.predicate.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    /// Digest of the recipe.
    pub fn recipe_sha256(&self) -> &str {
        self.text("/buildDefinition/externalParameters/recipe/sha256")
    }

    /// What a second build must be told beside recipe, lock and patches.
    ///
    /// # Errors
    /// Bad input: it does not say so, or names a recipe by what is no name.
    pub fn facts(&self) -> Result<Facts> {
        let toolchain = "/buildDefinition/internalParameters/toolchain/is";
        let mut toolchain = self.predicate.pointer(toolchain).cloned().unwrap_or_default();
        // What the packages of the build environment are is in the lock; artifacts do not carry it.
        if let Some(toolchain) = toolchain.as_object_mut() {
            toolchain.remove("tools");
        }
        let python = self.text("/buildDefinition/externalParameters/python");
        let facts = Facts {
            schema_version: SCHEMA_VERSION,
            torchmill: self.text("/runDetails/builder/version/torchmill").to_owned(),
            recipe: self.text("/buildDefinition/externalParameters/recipe/name").to_owned(),
            python: Some(minor_of(python)),
            machine: self.text("/buildDefinition/externalParameters/machine").to_owned(),
            toolchain,
        };
        match facts.fault() {
            Some(fault) => Err(Error::misuse("statement", format!("the statement names {fault}"))
                .next("was it written by torchmill, whole?")),
            None => Ok(facts),
        }
    }

    /// Digest of the toolchain.
    pub fn toolchain_sha256(&self) -> &str {
        self.text("/buildDefinition/internalParameters/toolchain/sha256")
    }

    /// Says where the objects came from, of a build that did not compile all of them.
    pub fn state_objects(&mut self, origins: &Value) {
        self.predicate["buildDefinition"]["internalParameters"]["objects"] = origins.clone();
    }

    /// How many objects came from elsewhere, and how many of these were compiled again, to the same bytes. What is there
    /// and is no number is taken for the worst.
    pub fn foreign_objects(&self) -> (u64, u64) {
        let number = |name: &str, worst: u64| {
            let pointer = format!("/buildDefinition/internalParameters/objects/{name}");
            self.predicate.pointer(&pointer).map_or(0, |value| value.as_u64().unwrap_or(worst))
        };
        let all = self.predicate.pointer("/buildDefinition/internalParameters/objects");
        if all.is_some_and(|all| !all.is_object()) {
            return (u64::MAX, 0);
        }
        let foreign = ["imported", "shared", "farm"].map(|name| number(name, u64::MAX));
        (foreign.into_iter().fold(0, u64::saturating_add), number("audited", 0))
    }

    /// The builder's id, as the statement has it.
    pub fn builder(&self) -> &str {
        self.text("/runDetails/builder/id")
    }

    /// The bytes of the file.
    ///
    /// # Errors
    /// None that a user can cause.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut text = serde_json::to_vec_pretty(self).map_err(|e| Error::world("statement", e.to_string()))?;
        text.push(b'\n');
        Ok(text)
    }
}
