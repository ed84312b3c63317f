//! Keys: a digest of all that a stage reads. Same key, same output, not run again.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The key of a stage: SHA-256 over its named inputs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Key(String);

impl Key {
    /// The first 20 hexadecimal digits: enough for a folder's name, short enough for paths.
    pub fn short(&self) -> &str {
        &self.0[..20]
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Collects the named inputs of a stage.
#[derive(Debug, Clone)]
pub struct KeyBuilder {
    hash: Sha256,
}

impl KeyBuilder {
    /// Begins the key of `stage`, whose code has this `version`: raise it when the code changes
    /// what comes out.
    pub fn new(stage: &str, version: u32) -> Self {
        Self { hash: Sha256::new() }.text("stage", stage).text("stage-version", &version.to_string())
    }

    /// Adds a named text. Names and values are length-prefixed, so no two lists collide.
    #[must_use]
    pub fn text(mut self, name: &str, value: &str) -> Self {
        tracing::debug!(target: "key", "{name} = {}", crate::logging::redact(value));
        for part in [name, value] {
            self.hash.update((part.len() as u64).to_le_bytes());
            self.hash.update(part.as_bytes());
        }
        self
    }

    /// Adds the key of an input.
    #[must_use]
    pub fn key(self, name: &str, key: &Key) -> Self {
        self.text(name, &key.0)
    }

    /// Adds anything serializable, by its JSON (maps must be ordered ones).
    #[must_use]
    pub fn json(self, name: &str, value: &impl Serialize) -> Self {
        let text = serde_json::to_string(value).unwrap_or_default();
        self.text(name, &text)
    }

    /// Ends the digest: the key of all that was added.
    pub fn finish(self) -> Key {
        let key = Key(hex::encode(self.hash.finalize()));
        tracing::debug!(target: "key", "= {key}");
        key
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn moving_a_letter_between_name_and_value_changes_the_key(a in "[a-z]{1,8}", b in "[a-z]{1,8}") {
            let (x, y) = (format!("{a}{b}"), String::new());
            let one = KeyBuilder::new("s", 1).text(&a, &b).finish();
            let two = KeyBuilder::new("s", 1).text(&x, &y).finish();
            prop_assert_ne!(one, two);
        }
    }
}
