//! What was compiled in a store, as its work folders tell it.

use std::path::Path;

use serde::Serialize;

use super::step::Step;
use super::steps::compile::{Compile, Record};
use super::steps::configure::Configure;
use super::work::{FOLDER, Work};
use crate::store::{Parts, Store};

/// A compile that is done, and whose work folder stands.
#[derive(Debug, Clone, Serialize)]
pub struct Compiled {
    /// Version of torch, with its local label.
    pub version: String,
    /// The Python that it is for.
    pub python: String,
    /// The compiler, as it calls itself.
    pub compiler: String,
    /// What is kept of it.
    pub record: Record,
}

/// The compiles of a store that are done and were not cleaned away, by version and Python.
pub fn compiled(store: &Store) -> Vec<Compiled> {
    let read = |folder: &Path, file: &str| fs_err::read(folder.join(file)).ok();
    let one = |folder: &Path| -> Option<Compiled> {
        let parts: Parts = serde_json::from_slice(&read(folder, &Work::parts_file(Configure::NAME))?).ok()?;
        let record = serde_json::from_slice(&read(folder, &Work::record_file(Compile::NAME))?).ok()?;
        let shown = |name: &str| parts.shown(name).unwrap_or("not noted").to_owned();
        Some(Compiled { version: shown("version"), python: shown("python"), compiler: shown("compiler"), record })
    };
    let mut all: Vec<Compiled> = store.works(FOLDER).iter().filter_map(|folder| one(folder)).collect();
    all.sort_by(|a, b| (&a.version, &a.python).cmp(&(&b.version, &b.python)));
    all
}
