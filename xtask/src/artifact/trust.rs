//! A policy: whom a team believes. A TOML file; everything that is in it must be met, and what a
//! statement says of recipe, toolchain and builder counts only under a signature.
//!
//! ```toml
//! schema = 1
//! keys = ["build.pub"]          # public keys (PEM), relative to this file: one of them has signed
//! recipes = ["<sha256>"]        # `cargo xtask verify ARTIFACT` prints an artifact's own
//! toolchains = ["<sha256>"]
//! builders = ["https://…"]      # runDetails.builder.id
//! objects = "own"               # none came from elsewhere; "audited": all that did were compiled again
//! ```
//! An empty list allows nothing, and says so when it is read.

use std::path::Path;

use ed25519_dalek::VerifyingKey;
use serde::Deserialize;

use super::dsse;
use crate::error::{Error, Result};
use crate::platform::{MOST_TEXT, read_text};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    schema: u32,
    keys: Option<Vec<String>>,
    recipes: Option<Vec<String>>,
    toolchains: Option<Vec<String>>,
    builders: Option<Vec<String>>,
    objects: Option<Objects>,
}

/// Which compiled objects may be in an artifact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Objects {
    /// Only those that its builder compiled.
    Own,
    /// From elsewhere too, if the builder compiled every one of them again to the same bytes.
    Audited,
}

/// Whom and what to believe.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// Of each group one must have signed: the policy's own keys, and those of the command line. Of an
    /// empty group nobody can.
    pub signers: Vec<Vec<VerifyingKey>>,
    /// Digests of the recipes that may have been built; `None` for any.
    pub recipes: Option<Vec<String>>,
    /// Digests of the toolchains that may have compiled; `None` for any.
    pub toolchains: Option<Vec<String>>,
    /// Ids of the builders that may have built; `None` for any.
    pub builders: Option<Vec<String>>,
    /// Which compiled objects may be in the artifact; `None` for any.
    pub objects: Option<Objects>,
    /// What whoever wrote it may not have meant.
    pub warnings: Vec<String>,
}

impl Policy {
    /// Reads the policy at `path`.
    ///
    /// # Errors
    /// Bad input, with the file and what is wrong in it.
    pub fn load(path: &Path) -> Result<Self> {
        let bad = |what: String| Error::misuse("policy", format!("{}: {what}", path.display()));
        let text = read_text(path, MOST_TEXT).map_err(|e| bad(e.to_string()))?;
        Self::parse(&text, path.parent().unwrap_or(Path::new("")), &path.display().to_string())
    }

    /// Reads the text of a policy whose keys stand in `here`.
    ///
    /// # Errors
    /// As [`Policy::load`].
    pub fn parse(text: &str, here: &Path, whence: &str) -> Result<Self> {
        let bad = |what: String| Error::misuse("policy", format!("{whence}: {what}"));
        let file: File = toml::from_str(text).map_err(|e| bad(crate::platform::toml_error(text, &e)))?;
        if file.schema != 1 {
            return Err(bad(format!("schema {} is not known to this program, which reads 1", file.schema)));
        }
        for digest in [&file.recipes, &file.toolchains].into_iter().flatten().flatten() {
            if !crate::recipe::is_sha256(digest) {
                return Err(bad(format!("'{}' is not a SHA-256 in lower-case hexadecimal", digest.escape_debug())));
            }
        }
        // What a statement does not say is no builder.
        if file.builders.iter().flatten().any(|builder| builder.trim().is_empty()) {
            return Err(bad("a builder without a name would be anybody".into()));
        }
        let lists = [
            ("keys", &file.keys),
            ("recipes", &file.recipes),
            ("toolchains", &file.toolchains),
            ("builders", &file.builders),
        ];
        if lists.iter().all(|(_, list)| list.is_none()) && file.objects.is_none() {
            return Err(bad("it demands nothing, so it would allow everything".into())
                .next("name whom you trust: keys = [\"build.pub\"]"));
        }
        let empty = lists.iter().filter(|(_, list)| list.as_ref().is_some_and(Vec::is_empty));
        let warnings =
            empty.map(|(name, _)| format!("{whence}: the list '{name}' is empty: it allows nothing")).collect();
        let keys = |names: &Vec<String>| names.iter().map(|k| dsse::public_key(&here.join(k))).collect::<Result<_>>();
        let signers = file.keys.as_ref().map(keys).transpose()?.into_iter().collect();
        Ok(Self {
            signers,
            recipes: file.recipes,
            toolchains: file.toolchains,
            builders: file.builders,
            objects: file.objects,
            warnings,
        })
    }

    /// Asks for a signature of one of `keys` as well.
    pub fn demand(&mut self, keys: Vec<VerifyingKey>) {
        if !keys.is_empty() {
            self.signers.push(keys);
        }
    }

    /// Whether it asks for anything.
    pub fn demands(&self) -> bool {
        !self.signers.is_empty()
            || self.recipes.is_some()
            || self.toolchains.is_some()
            || self.builders.is_some()
            || self.objects.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_absent_or_empty_allows_nothing() {
        let parse = |text: &str| Policy::parse(text, Path::new(""), "p.toml");
        assert!(parse("schema = 1\n").unwrap_err().what().contains("demands nothing"));
        let policy = parse("schema = 1\nkeys = []\nrecipes = []\n").unwrap();
        assert_eq!((policy.signers.len(), policy.warnings.len()), (1, 2));
        assert!(policy.demands() && policy.warnings[0].contains("allows nothing"));
        assert!(parse("schema = 1\nrecipes = [\"AA\"]\n").is_err());
        assert!(parse("schema = 2\nkeys = []\n").is_err());
        assert!(parse("schema = 1\nbuilders = [\"\"]\n").unwrap_err().what().contains("would be anybody"));
        for wrong in ["keys = \"a\"", "keys = [1]", "key = []", "objects = []", "builders = {}"] {
            assert!(parse(&format!("schema = 1\nrecipes = []\n{wrong}\n")).is_err(), "{wrong}");
        }
        let own = parse("schema = 1\nobjects = \"own\"\n").unwrap();
        assert!(own.demands() && own.objects == Some(Objects::Own));
        assert!(parse("schema = 1\nobjects = \"any\"\n").is_err());
    }
}
