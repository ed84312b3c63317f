//! Retention: which files go, by rule.

use std::collections::BTreeSet;
use std::str::FromStr;

use pep440_rs::Version;
use serde::Serialize;

use super::index::{self, Index};
use super::page::File;
use crate::error::{Error, Result};
use crate::event::Sink;
use crate::wheel;

/// What goes: whatever none of the rules keeps. The newest release of a project always stays, and the newest that
/// installers take by themselves: none that is yanked (PEP 592), and none that is a pre-release. Where only what is yanked
/// goes, that may be the newest release, unless all are yanked.
#[derive(Debug, Clone, Default)]
pub struct Rule {
    /// The newest so many releases of a project stay, each with all of its builds: local versions (`2.12.1+cpu` and
    /// `2.12.1+cu130`) are builds of one release.
    pub keep: Option<usize>,
    /// What was published within so many days stays.
    pub days: Option<u32>,
    /// Only what is yanked goes, also of a release that another rule counts among the newest.
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

impl AsRef<str> for Pruned {
    fn as_ref(&self) -> &str {
        &self.filename
    }
}

/// Removes the files that a rule lets go. Nobody changes the index between the choice and the removal: what was yanked or
/// published before counts.
///
/// # Errors
/// As [`chosen`]. The index cannot be written.
pub fn prune(index: &Index, rule: &Rule, events: &dyn Sink) -> Result<Vec<Pruned>> {
    index.remove_chosen(|| chosen(index, rule), "retention", events)
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
        let yanked = |f: &File| f.yanked.reason().is_some();
        let all = versions(files.iter());
        let free = versions(files.iter().filter(|f| !yanked(f)));
        // What is yanked is there for those who pin it: it counts as a release like others, unless it is what shall go.
        let yanks_go = rule.yanked && !free.is_empty();
        let counted = if yanks_go { &free } else { &all };
        let releases: BTreeSet<Version> = counted.iter().map(release).collect();
        let newest: BTreeSet<&Version> = releases.iter().rev().take(rule.keep.unwrap_or(1).max(1)).collect();
        let mut stay: Vec<&Version> = counted.iter().filter(|v| newest.contains(&release(v))).collect();
        for some in [counted, &free] {
            stay.extend(some.last());
            stay.extend(some.iter().rfind(|v| !v.any_prerelease()));
        }
        gone.extend(
            files
                .iter()
                .filter(|f| (yanks_go && yanked(f)) || !version(f).is_some_and(|v| stay.contains(&&v)))
                .filter(|f| !rule.yanked || yanked(f))
                .filter(|f| before.as_ref().is_none_or(|b| f.upload_time < *b))
                .map(|f| Pruned { filename: f.filename.clone(), size: f.size, upload_time: f.upload_time.clone() }),
        );
    }
    Ok(gone)
}

fn version(file: &File) -> Option<Version> {
    Version::from_str(&file.version).ok()
}

/// The release that a version is a build of: without its local part (PEP 440).
fn release(version: &Version) -> Version {
    version.clone().without_local()
}

/// The versions of files, each once, the newest last.
fn versions<'f>(files: impl Iterator<Item = &'f File>) -> Vec<Version> {
    files.filter_map(version).collect::<BTreeSet<_>>().into_iter().collect()
}
