//! What an archive of objects says of itself, and what its files are called.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::artifact::audit::OBJECTS_ENDING;
use crate::artifact::json::few_values;
use crate::error::{Error, Result};
use crate::recipe::is_sha256;
use crate::stage::build::Build;
use crate::stage::steps::cuda;

/// The file that says it, at the top of the archive.
pub const FILE: &str = "about.json";
/// Version of the format of the archive.
const SCHEMA_VERSION: u32 = 1;

/// `about.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// Version of this format.
    pub schema_version: u32,
    /// Name of the recipe.
    pub recipe: String,
    /// PyTorch's full version.
    pub version: String,
    /// Python, such as `3.11`.
    pub python: String,
    /// Machine, such as `x86_64`.
    pub machine: String,
    /// What the compiler says first.
    pub compiler: String,
    /// SHA-256 of the compiler's identity: what it says, and the bytes of all that makes an object.
    pub compiler_sha256: String,
    /// Objects in the archive.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Why objects of the build are not in the archive, and how many.
    pub left_out: BTreeMap<String, u64>,
    /// Headers of the system and of Python that were read: name → SHA-256.
    pub headers: BTreeMap<String, String>,
}

impl About {
    /// Of the objects of `build`; which they are is not yet said.
    ///
    /// # Errors
    /// A CUDA toolkit cannot be read.
    pub fn of(build: &Build<'_>) -> Result<Self> {
        Ok(Self {
            schema_version: SCHEMA_VERSION,
            recipe: build.recipe.name.clone(),
            version: build.recipe.torch.full_version(),
            python: build.python.minor(),
            machine: build.python.machine.clone(),
            compiler: build.compiler.banner.clone(),
            compiler_sha256: compiler_sha256(build)?,
            objects: 0,
            bytes: 0,
            left_out: BTreeMap::new(),
            headers: BTreeMap::new(),
        })
    }

    /// Reads the file.
    ///
    /// # Errors
    /// Bad input: it is none, or of a newer format.
    pub fn parse(bytes: &[u8], whence: &str) -> Result<Self> {
        let bad = |what: String| Error::misuse("objects", format!("{whence}: {FILE} {what}"));
        few_values(bytes).map_err(|why| bad(format!("is not read: {why}")))?;
        let value: serde_json::Value = serde_json::from_slice(bytes).map_err(|e| bad(format!("is no JSON: {e}")))?;
        match value["schema_version"].as_u64() {
            Some(v) if v <= u64::from(SCHEMA_VERSION) => {}
            Some(v) => {
                return Err(
                    bad(format!("has format {v}; this program reads {SCHEMA_VERSION}")).next("update torchmill")
                );
            }
            None => return Err(bad("states no schema_version".into())),
        }
        let about: Self = serde_json::from_value(value).map_err(|e| bad(e.to_string()))?;
        match about.headers.values().find(|digest| !is_sha256(digest)) {
            Some(digest) => Err(bad(format!("has '{}' for a SHA-256", digest.escape_debug()))),
            None => Ok(about),
        }
    }

    /// The name of the archive.
    pub fn file(&self) -> String {
        let python = format!("cp{}", self.python.replace('.', ""));
        format!("{}-{python}-{}{OBJECTS_ENDING}", self.recipe, self.machine)
    }
}

/// SHA-256 of the identity of the compilers that `build` compiles with, nvcc among them.
///
/// # Errors
/// A CUDA toolkit cannot be read.
pub fn compiler_sha256(build: &Build<'_>) -> Result<String> {
    let mut hash = Sha256::new();
    hash.update(build.compiler.identity());
    if build.recipe.cuda.is_some() {
        hash.update(cuda::identity(build)?);
    }
    Ok(hex::encode(hash.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newer_format_and_a_wrong_digest_are_named() {
        let parse = |text: &str| About::parse(text.as_bytes(), "x").unwrap_err();
        assert!(parse("{").what().contains("is no JSON"));
        assert!(parse(&"[".repeat(200_001)).what().contains("more than 200000 brackets"));
        assert!(parse("{}").what().contains("states no schema_version"));
        assert!(parse("{\"schema_version\": 9}").what().contains("has format 9; this program reads 1"));
        let about = About {
            schema_version: 1,
            recipe: "r".into(),
            version: "2.6.0".into(),
            python: "3.11".into(),
            machine: "x86_64".into(),
            compiler: "c++ 12".into(),
            compiler_sha256: "0".repeat(64),
            objects: 1,
            bytes: 1,
            left_out: BTreeMap::new(),
            headers: BTreeMap::from([("/usr/include/a.h".into(), "../x".into())]),
        };
        assert_eq!(about.file(), "r-cp311-x86_64.objects.tar.gz");
        assert!(parse(&serde_json::to_string(&about).unwrap()).what().contains("'../x' for a SHA-256"));
    }
}
