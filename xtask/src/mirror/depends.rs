//! What the wheels of an index need and the index does not have: an installer that looks nowhere else fails for want of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::str::FromStr;

use pep440_rs::Version;
use pep508_rs::{ExtraName, Requirement, VerbatimUrl, VersionOrUrl};
use serde::Serialize;

use super::index::{Added, Index};
use super::page::{File, ProjectPage};
use super::wheel::Name;
use crate::error::{Context, Result};
use crate::platform;
use crate::recipe::System;
use crate::source::pypi::{self, Platform};
use crate::wheel::{self, Newest};

/// Pythons that wheels are made for.
const MINORS: [&str; 8] = ["3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.14", "3.15"];
/// Which Python a wheel for all of them is asked about.
const ANY_PYTHON: &str = "3.11";
/// Largest METADATA that is read, in bytes.
const MOST_METADATA: u64 = 64 << 20;

/// Extras that are asked for of a file; their names compare normalized (PEP 685).
pub type Extras = BTreeSet<ExtraName>;

/// A need that is not met.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Missing {
    /// Project and specifier, as METADATA has them.
    pub requirement: String,
    /// A file that needs it.
    pub needed_by: String,
    /// The extra under which that file needs it, if it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extra: Option<String>,
    /// Normalized name of what is needed.
    pub project: String,
}

/// Where a wheel of this name runs.
pub fn platform_of(name: &Name) -> Platform<'static> {
    let tags = format!("{}.{}", name.platform, name.abi);
    let system = match &tags {
        t if t.contains("win32") || t.contains("win_") => System::Windows,
        t if t.contains("macosx") => System::Macos,
        _ => System::Linux,
    };
    let machine = if tags.contains("aarch64") || tags.contains("arm64") { "aarch64" } else { "x86_64" };
    Platform { system, machine, minor: own_python(name).unwrap_or(ANY_PYTHON) }
}

/// The first Python of which the name has the tag.
fn own_python(name: &Name) -> Option<&'static str> {
    MINORS.into_iter().find(|m| name.python.split('.').any(|p| p == format!("cp{}", m.replace('.', ""))))
}

/// Whether a wheel of this name runs on no other Python than that of [`platform_of`].
fn has_one_python(name: &Name) -> bool {
    let is_stable = name.abi.split('.').any(|abi| abi == "abi3");
    !is_stable && !name.python.contains('.') && own_python(name).is_some()
}

/// What METADATA asks for where `platform` is; lines that cannot be read ask for nothing.
pub fn requirements(metadata: &str, extras: &[ExtraName], platform: Platform<'_>) -> Vec<Requirement<VerbatimUrl>> {
    let Ok(environment) = platform.environment() else { return Vec::new() };
    let headers = wheel::Metadata::lenient(metadata);
    headers
        .all("Requires-Dist")
        .filter_map(|v| crate::recipe::requirement(v).ok())
        .filter(|r| r.evaluate_markers(&environment, extras))
        .collect()
}

/// Whether `version` is what a requirement asks for.
pub fn accepts(requirement: &Requirement<VerbatimUrl>, version: &str) -> bool {
    match (&requirement.version_or_url, Version::from_str(version)) {
        (Some(VersionOrUrl::VersionSpecifier(s)), Ok(version)) => s.contains(&version),
        // From an address that no index answers for: whoever added a file of that name has judged it.
        (Some(VersionOrUrl::Url(_)) | None, Ok(_)) => true,
        _ => false,
    }
}

/// The files of a project that run on `platform` and meet the requirement.
pub fn meeting<'p>(
    page: &'p ProjectPage,
    requirement: &'p Requirement<VerbatimUrl>,
    platform: Platform<'p>,
) -> impl Iterator<Item = &'p File> {
    let Platform { system, machine, minor } = platform;
    page.files.iter().filter(move |f| {
        f.yanked.reason().is_none()
            && accepts(requirement, &f.version)
            && wheel::fit_within(&f.filename, minor, system, machine, Newest::ANY).is_some()
    })
}

/// METADATA of a published file.
///
/// # Errors
/// The world: it cannot be read.
pub fn metadata_of(index: &Index, project: &str, filename: &str) -> Result<String> {
    let path = index.files(project).join(format!("{filename}.metadata"));
    let bytes = platform::read_regular(&path, MOST_METADATA).doing(|| format!("reading {}", path.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A file to look at: by itself, or with one of its extras. Installers read markers under one extra at a time.
struct Look {
    project: String,
    filename: String,
    extra: Option<ExtraName>,
    /// Where whoever asks for it runs.
    platform: Platform<'static>,
    /// Whether that is its one Python, and not one of many: what it needs must run there.
    has_one_python: bool,
}

/// What is still to be looked at. Nothing comes twice: extras may ask for one another.
#[derive(Default)]
struct Ahead {
    queue: VecDeque<Look>,
    seen: BTreeSet<(String, Option<ExtraName>, [&'static str; 3], bool)>,
}

impl Ahead {
    fn add(&mut self, look: Look) {
        let Platform { system, machine, minor } = look.platform;
        let at = [system.name(), machine, minor];
        if self.seen.insert((look.filename.clone(), look.extra.clone(), at, look.has_one_python)) {
            self.queue.push_back(look);
        }
    }
}

/// What the files of `index` need, of those that `of` chooses, and nothing in it meets.
///
/// # Errors
/// The index cannot be read.
pub fn missing(index: &Index, of: impl Fn(&str) -> bool) -> Result<Vec<Missing>> {
    missing_with(index, of, &BTreeMap::new())
}

/// The same of files that came in, of some of which extras are asked for, by file name.
///
/// # Errors
/// The index cannot be read.
pub fn missing_of(index: &Index, added: &[Added], asked: &BTreeMap<String, Extras>) -> Result<Vec<Missing>> {
    missing_with(index, |name| added.iter().any(|a| a.filename == name), asked)
}

/// The same where extras are asked for of some of these files. A file that another one asks for with extras is looked at
/// with them, whether `of` chooses it or not.
fn missing_with(index: &Index, of: impl Fn(&str) -> bool, asked: &BTreeMap<String, Extras>) -> Result<Vec<Missing>> {
    let (mut pages, mut ahead) = (BTreeMap::new(), Ahead::default());
    for project in index.projects()? {
        let page = index.project(&project)?;
        for file in page.files.iter().filter(|f| f.yanked.reason().is_none() && of(&f.filename)) {
            let Ok(name) = file.filename.parse::<Name>() else { continue };
            let extras = asked.get(&file.filename).into_iter().flatten().cloned().map(Some);
            for extra in std::iter::once(None).chain(extras) {
                let (project, filename) = (project.clone(), file.filename.clone());
                let (platform, has_one_python) = (platform_of(&name), has_one_python(&name));
                ahead.add(Look { project, filename, extra, platform, has_one_python });
            }
        }
        pages.insert(project, page);
    }
    let mut missing = BTreeMap::new();
    while let Some(Look { project, filename, extra, platform, has_one_python }) = ahead.queue.pop_front() {
        platform::check_cancelled()?;
        // METADATA that cannot be read asks for nothing here: `mirror check` names it.
        let Ok(metadata) = metadata_of(index, &project, &filename) else { continue };
        for requirement in requirements(&metadata, extra.as_slice(), platform) {
            let needed = wheel::normalize(requirement.name.as_ref());
            if !pages.contains_key(&needed) {
                pages.insert(needed.clone(), index.project(&needed)?);
            }
            let runs = |f: &&File| !has_one_python || pypi::runs_on(f.requires_python.as_deref(), platform.minor);
            let meeting: Vec<&File> = meeting(&pages[&needed], &requirement, platform).filter(runs).collect();
            for wanted in &requirement.extras {
                for file in &meeting {
                    let (project, filename, extra) = (needed.clone(), file.filename.clone(), Some(wanted.clone()));
                    ahead.add(Look { project, filename, extra, platform, has_one_python });
                }
            }
            if meeting.is_empty() {
                let requirement = crate::recipe::shown(&requirement);
                missing.entry(requirement.clone()).or_insert(Missing {
                    requirement,
                    needed_by: filename.clone(),
                    extra: extra.as_ref().map(ToString::to_string),
                    project: needed,
                });
            }
        }
    }
    Ok(missing.into_values().collect())
}
