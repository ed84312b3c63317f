//! The named inputs of a stage: its key is made of them, and they stay beside its result, so that a later run
//! can say in which of them it differs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::key::{Key, KeyBuilder};

/// One named input of a key, as it is kept beside the result so that a later run can say what differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// What it is: `compiler`, `patch x.patch`.
    pub name: String,
    /// What the key is made of: a text, a digest.
    pub value: String,
    /// How people know the value, where they do: `g++ 12.2.0`. Decides nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shown: Option<String>,
}

/// The named inputs of one result of a stage, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parts {
    stage: String,
    version: u32,
    parts: Vec<Part>,
}

impl Parts {
    /// Begins with the stage's name and the version of its code.
    pub fn new(stage: &str, version: u32) -> Self {
        Self { stage: stage.to_owned(), version, parts: Vec::new() }
    }

    /// A short text that people can read.
    pub fn text(&mut self, name: impl Into<String>, value: impl Into<String>) {
        let value = value.into();
        self.parts.push(Part { name: name.into(), shown: Some(value.clone()), value });
    }

    /// A digest, or a key: all that can be said of two is that they differ.
    pub fn digest(&mut self, name: impl Into<String>, digest: impl Into<String>) {
        self.parts.push(Part { name: name.into(), value: digest.into(), shown: None });
    }

    /// The content of a file, or another long text.
    pub fn content(&mut self, name: impl Into<String>, content: impl AsRef<[u8]>) {
        self.digest(name, hex::encode(Sha256::digest(content)));
    }

    /// A long text that has a name for people, such as a compiler by its version.
    pub fn known_as(&mut self, name: impl Into<String>, content: &str, shown: impl Into<String>) {
        let value = hex::encode(Sha256::digest(content));
        self.parts.push(Part { name: name.into(), value, shown: Some(shown.into()) });
    }

    /// Anything serializable, by its JSON (maps must be ordered ones).
    pub fn json(&mut self, name: impl Into<String>, value: &impl Serialize) {
        let value = serde_json::to_value(value).unwrap_or_default();
        match &value {
            serde_json::Value::Bool(on) => {
                let shown = if *on { "on" } else { "off" }.to_owned();
                self.parts.push(Part { name: name.into(), value: value.to_string(), shown: Some(shown) });
            }
            serde_json::Value::String(text) if text.len() <= 200 => {
                self.parts.push(Part { name: name.into(), value: value.to_string(), shown: Some(text.clone()) });
            }
            other => {
                let text = other.to_string();
                if text.len() <= 200 { self.text(name, text) } else { self.content(name, text) }
            }
        }
    }

    /// An ordered map, each entry by its own name: `feature USE_CUDA`.
    pub fn each<V: Serialize>(&mut self, kind: &str, map: &BTreeMap<String, V>) {
        for (name, value) in map {
            self.json(format!("{kind} {name}"), value);
        }
    }

    /// All inputs, in the order that the key has them.
    pub fn iter(&self) -> impl Iterator<Item = &Part> {
        self.parts.iter()
    }

    /// The value of the first input of this name.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.parts.iter().find(|p| p.name == name).map(|p| p.value.as_str())
    }

    /// The same for people: an input of which only a digest counts is kept with what it was.
    pub fn shown(&self, name: &str) -> Option<&str> {
        let part = self.parts.iter().find(|p| p.name == name)?;
        Some(part.shown.as_deref().unwrap_or(&part.value))
    }

    /// The key that these inputs make: their order counts.
    pub fn key(&self) -> Key {
        let begun = KeyBuilder::new(&self.stage, self.version);
        self.parts.iter().fold(begun, |key, part| key.text(&part.name, &part.value)).finish()
    }

    /// In what this differs from an `earlier` result's, in words: `compiler: 12.2.0 → 13.1.0`.
    pub fn differences(&self, earlier: &Self) -> Vec<String> {
        let mut out = Vec::new();
        if self.version != earlier.version {
            out.push(format!("this stage's own version: {} → {}", earlier.version, self.version));
        }
        let (then, now) = (earlier.by_name(), self.by_name());
        for (name, part) in &now {
            match then.get(name) {
                None => out.push(format!("{} is new", name.0)),
                Some(old) if old.value != part.value => out.push(change(old, part)),
                Some(_) => {}
            }
        }
        out.extend(then.keys().filter(|name| !now.contains_key(*name)).map(|name| format!("{} is gone", name.0)));
        if out.is_empty() && self != earlier {
            out.push("the same inputs in another order".into());
        }
        out
    }

    /// Inputs by name; several of one name by their number, too.
    fn by_name(&self) -> BTreeMap<(&str, usize), &Part> {
        let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
        let mut out = BTreeMap::new();
        for part in &self.parts {
            let number = seen.entry(&part.name).or_default();
            out.insert((part.name.as_str(), *number), part);
            *number += 1;
        }
        out
    }
}

/// `USE_MKLDNN: off → on`; where the values have no name, or the same one, that they differ.
fn change(old: &Part, new: &Part) -> String {
    match (&old.shown, &new.shown) {
        (Some(a), Some(b)) if a != b => format!("{}: {} → {}", new.name, or_nothing(a), or_nothing(b)),
        (Some(a), Some(_)) => format!("{} changed (still called '{a}')", new.name),
        _ => format!("{} changed", new.name),
    }
}

fn or_nothing(text: &str) -> &str {
    if text.is_empty() { "nothing" } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(fill: impl FnOnce(&mut Parts)) -> Parts {
        let mut parts = Parts::new("stage", 1);
        fill(&mut parts);
        parts
    }

    #[test]
    fn a_difference_is_said_in_words_with_the_old_value_first() {
        let before = parts(|p| {
            p.known_as("compiler", "digests of 12", "GCC 12.2.0");
            p.json("feature USE_CUDA", &false);
            p.digest("patch a.patch", "00");
            p.digest("patch b.patch", "11");
            p.text("setting X", "");
        });
        let after = parts(|p| {
            p.known_as("compiler", "digests of 13", "GCC 13.1.0");
            p.json("feature USE_CUDA", &true);
            p.digest("patch a.patch", "22");
            p.digest("patch c.patch", "33");
            p.text("setting X", "1");
        });
        assert_eq!(
            after.differences(&before),
            [
                "compiler: GCC 12.2.0 → GCC 13.1.0",
                "feature USE_CUDA: off → on",
                "patch a.patch changed",
                "patch c.patch is new",
                "setting X: nothing → 1",
                "patch b.patch is gone",
            ]
        );
    }

    #[test]
    fn other_bytes_under_the_same_name_are_told() {
        let before = parts(|p| p.known_as("compiler", "digests", "GCC 12.2.0"));
        let after = parts(|p| p.known_as("compiler", "other digests", "GCC 12.2.0"));
        assert_eq!(after.differences(&before), ["compiler changed (still called 'GCC 12.2.0')"]);
        assert_ne!(after.key(), before.key());
    }

    #[test]
    fn what_has_no_difference_has_the_same_key_and_survives_being_written_down() {
        let one = parts(|p| p.json("cuda", &["8.0", "9.0"]));
        let read: Parts = serde_json::from_str(&serde_json::to_string(&one).unwrap()).unwrap();
        assert_eq!(read.key(), one.key());
        assert_eq!(read.differences(&one), Vec::<String>::new());
    }

    #[test]
    fn two_inputs_of_one_name_are_told_apart_and_their_order_counts() {
        let both = parts(|p| {
            p.text("source", "a");
            p.text("source", "b");
        });
        let one = parts(|p| p.text("source", "a"));
        assert_eq!(both.differences(&one), ["source is new"]);
        let turned = parts(|p| {
            p.text("source", "b");
            p.text("source", "a");
        });
        assert_ne!(turned.key(), both.key());
        assert_eq!(turned.differences(&both), ["source: a → b", "source: b → a"]);
    }
}
