//! What the wheels of an index need and the index does not have: an installer that looks nowhere else fails for want of it.

use std::str::FromStr;

use pep440_rs::Version;
use pep508_rs::{Requirement, VerbatimUrl, VersionOrUrl};
use serde::Serialize;

use super::index::Index;
use super::page::ProjectPage;
use super::wheel::Name;
use crate::error::Result;
use crate::recipe::System;
use crate::source::pypi::Platform;
use crate::wheel::{self, Newest};

/// Which Python a wheel for all of them is asked about.
const ANY_PYTHON: &str = "3.11";

/// A need that is not met.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Missing {
    /// Project and specifier, as METADATA has them.
    pub requirement: String,
    /// A file that needs it.
    pub needed_by: String,
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
    let minors = ["3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.14", "3.15"];
    let own = minors.into_iter().find(|m| name.python.split('.').any(|p| p == format!("cp{}", m.replace('.', ""))));
    Platform { system, machine, minor: own.unwrap_or(ANY_PYTHON) }
}

/// What METADATA asks for where `platform` is; lines that cannot be read ask for nothing.
pub fn requirements(
    metadata: &str,
    extras: &[pep508_rs::ExtraName],
    platform: Platform<'_>,
) -> Vec<Requirement<VerbatimUrl>> {
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

/// Whether a project has a file for `platform` that meets the requirement.
pub fn meets(page: &ProjectPage, requirement: &Requirement<VerbatimUrl>, platform: Platform<'_>) -> bool {
    let Platform { system, machine, minor } = platform;
    page.files.iter().any(|f| {
        f.yanked.reason().is_none()
            && accepts(requirement, &f.version)
            && wheel::fit_within(&f.filename, minor, system, machine, Newest::ANY).is_some()
    })
}

/// What the files of `index` need, of those that `of` chooses, and nothing in it meets.
///
/// # Errors
/// The index cannot be read.
pub fn missing(index: &Index, of: impl Fn(&str) -> bool) -> Result<Vec<Missing>> {
    let mut missing = std::collections::BTreeMap::new();
    for project in index.projects()? {
        for file in index.project(&project)?.files.iter().filter(|f| f.yanked.reason().is_none() && of(&f.filename)) {
            let Ok(name) = file.filename.parse::<Name>() else { continue };
            let path = index.files(&project).join(format!("{}.metadata", file.filename));
            let metadata = fs_err::read(&path)?;
            let platform = platform_of(&name);
            for requirement in requirements(&String::from_utf8_lossy(&metadata), &[], platform) {
                let needed = wheel::normalize(requirement.name.as_ref());
                if !meets(&index.project(&needed)?, &requirement, platform) {
                    let requirement = crate::recipe::shown(&requirement);
                    missing.entry(requirement.clone()).or_insert(Missing {
                        requirement,
                        needed_by: file.filename.clone(),
                        project: needed,
                    });
                }
            }
        }
    }
    Ok(missing.into_values().collect())
}
