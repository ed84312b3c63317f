//! The manifest: what an artifact is made of. Nothing in it changes from run to run; timings stand
//! in a file of their own.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The manifest beside a wheel and a bundle.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this format.
    pub schema_version: u32,
    /// Name of the recipe that it was built by.
    pub recipe: String,
    /// The version that comes out, of PyTorch or of a companion, with its local label (PEP 440): `2.6.0+cpu.libuv`.
    pub version: String,
    /// Commit of PyTorch, 40 hexadecimal digits; empty for a companion, which is known by its source's digest.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub commit: String,
    /// SOURCE_DATE_EPOCH of the build: seconds since 1970, UTC.
    pub epoch: i64,
    /// Key of the configured build: digest of everything below and more.
    pub key: String,
    /// Switches as CMake ended with them.
    pub features: BTreeMap<String, bool>,
    /// Variables of the build that are no switches.
    pub settings: BTreeMap<String, String>,
    /// Sources by name, with their licences and coordinates.
    pub sources: BTreeMap<String, Input>,
    /// Packages of the build environment.
    pub build_packages: BTreeMap<String, Input>,
    /// Patches by file, with their SHA-256.
    pub patches: BTreeMap<String, String>,
    /// Compiler, linker, Python.
    pub toolchain: serde_json::Value,
    /// Version of the libuv that the store was linked with, in the manifest of a torch.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub libuv: Option<String>,
    /// The wheel's tag, and why it is not an older one.
    pub tag: String,
    /// What decided the manylinux level.
    pub tag_reason: String,
    /// Libraries of the system that were taken inside: soname → SHA-256.
    pub grafted: BTreeMap<String, String>,
    /// Artifacts: name → digest and size.
    pub artifacts: BTreeMap<String, Input>,
}

/// Digest, size and where a thing came from.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Input {
    /// SHA-256, hexadecimal.
    pub sha256: String,
    /// Size in bytes.
    pub size: u64,
    /// SPDX licence expression, for sources.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub license: Option<String>,
    /// Where it can be had, by coordinate.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub coordinates: Vec<String>,
}
