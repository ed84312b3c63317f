//! Retention: which files go, by rule.

use std::str::FromStr;

use pep440_rs::Version;
use serde::Serialize;

use super::index::{self, Index};
use super::page::File;
use crate::error::{Error, Result};
use crate::wheel;

/// What goes: whatever none of the rules keeps. The newest release of a project always stays.
#[derive(Debug, Clone, Default)]
pub struct Rule {
    /// The newest so many releases of a project stay.
    pub keep: Option<usize>,
    /// What was published within so many days stays.
    pub days: Option<u32>,
    /// Only what is yanked goes.
    pub yanked: bool,
    /// Only these projects.
    pub projects: Vec<String>,
}

/// A file that goes.
#[derive(Debug, Clone, Serialize)]
pub struct Pruned {
    /// Its name in the index.
    pub filename: String,
    /// Size of the file in bytes.
    pub size: u64,
    /// When it was published.
    pub upload_time: String,
}

/// The files that a rule lets go.
///
/// # Errors
/// Bad input: a project that the index does not have. The index cannot be read.
pub fn chosen(index: &Index, rule: &Rule) -> Result<Vec<Pruned>> {
    let only: Vec<String> = rule.projects.iter().map(|p| wheel::normalize(p)).collect();
    let before = rule.days.map(index::days_ago);
    let mut gone = Vec::new();
    let projects = index.projects()?;
    if let Some(unknown) = only.iter().find(|name| !projects.contains(name)) {
        return Err(Error::misuse("no-project", format!("the index has no project '{unknown}'"))
            .next("`mirror list` shows those that it has"));
    }
    for project in projects {
        if !only.is_empty() && !only.contains(&project) {
            continue;
        }
        let files = index.project(&project)?.files;
        let version = |f: &File| Version::from_str(&f.version).ok();
        let mut versions: Vec<Version> =
            files.iter().filter(|f| f.yanked.reason().is_none()).filter_map(version).collect();
        versions.sort();
        versions.dedup();
        // Installers pass over pre-releases: the newest release of those that are none stays as well.
        let last = versions.iter().rfind(|v| !v.any_prerelease()).cloned();
        let newest: Vec<Version> = versions.into_iter().rev().take(rule.keep.unwrap_or(1).max(1)).chain(last).collect();
        gone.extend(
            files
                .iter()
                .filter(|f| !version(f).is_some_and(|v| newest.contains(&v)) || f.yanked.reason().is_some())
                .filter(|f| !rule.yanked || f.yanked.reason().is_some())
                .filter(|f| before.as_ref().is_none_or(|b| f.upload_time < *b))
                .map(|f| Pruned { filename: f.filename.clone(), size: f.size, upload_time: f.upload_time.clone() }),
        );
    }
    Ok(gone)
}
