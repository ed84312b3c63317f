//! A policy: whom a team believes. A TOML file; every list that is there must be met.
//!
//! ```toml
//! schema = 1
//! keys = ["build.pub"]          # public keys (PEM), relative to this file: one of them has signed
//! recipes = ["<sha256>"]        # `cargo xtask verify ARTIFACT` prints an artifact's own
//! toolchains = ["<sha256>"]
//! builders = ["https://…"]      # runDetails.builder.id
//! ```

use std::path::Path;

use ed25519_dalek::VerifyingKey;
use serde::Deserialize;

use super::dsse;
use crate::error::{Error, Result};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    schema: u32,
    #[serde(default)]
    keys: Vec<String>,
    recipes: Option<Vec<String>>,
    toolchains: Option<Vec<String>>,
    builders: Option<Vec<String>>,
}

/// Whom and what to believe.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// One of them must have signed; nobody needs to where there are none.
    pub keys: Vec<VerifyingKey>,
    /// Digests of recipes.
    pub recipes: Option<Vec<String>>,
    /// Digests of toolchains.
    pub toolchains: Option<Vec<String>>,
    /// Builders.
    pub builders: Option<Vec<String>>,
}

impl Policy {
    /// Reads the policy at `path`.
    ///
    /// # Errors
    /// Bad input, with the file and what is wrong in it.
    pub fn load(path: &Path) -> Result<Self> {
        let bad = |what: String| Error::misuse("policy", format!("{}: {what}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|e| bad(e.to_string()))?;
        let file: File = toml::from_str(&text).map_err(|e| bad(e.to_string().trim_end().to_owned()))?;
        if file.schema != 1 {
            return Err(bad(format!("schema {} is not known to this program, which reads 1", file.schema)));
        }
        for digest in [&file.recipes, &file.toolchains].into_iter().flatten().flatten() {
            if digest.len() != 64 || !digest.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
                return Err(bad(format!("'{digest}' is not a SHA-256 in lower-case hexadecimal")));
            }
        }
        let here = path.parent().unwrap_or(Path::new(""));
        let keys = file.keys.iter().map(|k| dsse::public_key(&here.join(k))).collect::<Result<_>>()?;
        Ok(Self { keys, recipes: file.recipes, toolchains: file.toolchains, builders: file.builders })
    }
}
