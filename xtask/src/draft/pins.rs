//! Whether the pins of the build environment are what this version asks for, and which are, where they are not.

use std::collections::BTreeMap;
use std::str::FromStr;

use pep440_rs::{Version, VersionSpecifier, VersionSpecifiers};
use pep508_rs::VersionOrUrl;

use super::known::Known;
use crate::event::Sink;
use crate::recipe::{pinned, requirement};
use crate::source::{http_agent, pypi};

/// How the nearest recipe's build packages meet what this version's pyproject.toml asks for.
#[derive(Debug, Default)]
pub struct Pins {
    /// The whole list, where the nearest recipe's does not do.
    pub build: Option<Vec<String>>,
    /// What was pinned anew: name, and the requirement that the old pin did not meet.
    pub changed: Vec<(String, String)>,
    /// What is asked for, and is in nobody's list.
    pub missing: Vec<String>,
    /// What cannot be met: the requirement, and why.
    pub unmet: Vec<(String, String)>,
}

/// Holds the nearest recipe's pins against what the version asks for.
pub fn fit(known: &Known, events: &dyn Sink) -> Pins {
    let (upstream, build) = (&known.upstream, &known.nearest.recipe.python.build);
    let of_cmake = upstream.cmake.as_ref().map(|v| format!("cmake>={v}"));
    let mut pins = Pins::default();
    // All that is asked of one package, wherever it stands: what one line takes, another may exclude.
    let mut asked: BTreeMap<String, (Vec<&str>, Vec<VersionSpecifier>)> = BTreeMap::new();
    for text in upstream.requires.iter().chain(&of_cmake) {
        let Ok(one) = requirement(text) else {
            pins.unmet.push((text.clone(), "it is no PEP 508 requirement".into()));
            continue;
        };
        let (texts, ranges) = asked.entry(one.name.to_string()).or_default();
        if !texts.contains(&text.as_str()) {
            texts.push(text);
        }
        if let Some(VersionOrUrl::VersionSpecifier(range)) = one.version_or_url {
            ranges.extend(range);
        }
    }
    let mut anew = BTreeMap::new();
    for (name, (texts, ranges)) in asked {
        let text = texts.join(", ");
        let range: VersionSpecifiers = ranges.into_iter().collect();
        let own: Vec<Version> = build.iter().filter_map(|p| pin(p)).filter(|p| p.0 == name).map(|p| p.1).collect();
        if own.is_empty() {
            pins.missing.push(text);
            continue;
        }
        if own.iter().all(|version| range.contains(version)) {
            continue;
        }
        match newest(&name, &range) {
            Ok(version) => {
                events.note(format!("{text}: pinned to {version}"));
                pins.changed.push((name.clone(), text));
                anew.insert(name, (range, version));
            }
            Err(why) => pins.unmet.push((text, why)),
        }
    }
    if !anew.is_empty() {
        let list = build.iter().map(|old| match pin(old).map(|(n, v)| (anew.get(&n), v)) {
            Some((Some((range, version)), had)) if !range.contains(&had) => repinned(old, version),
            _ => old.clone(),
        });
        pins.build = Some(list.collect());
    }
    pins
}

/// Name and version of a pin.
fn pin(text: &str) -> Option<(String, Version)> {
    let requirement = requirement(text).ok()?;
    let version = Version::from_str(&pinned(&requirement)?).ok()?;
    Some((requirement.name.to_string(), version))
}

/// The pin `old` with another version: its marker stays.
fn repinned(old: &str, version: &Version) -> String {
    let name = old.split("==").next().unwrap_or(old).trim();
    match old.split_once(';') {
        Some((_, marker)) => format!("{name}=={version};{marker}"),
        None => format!("{name}=={version}"),
    }
}

/// The newest release on the index within `range` that has a wheel, and was not taken back.
fn newest(name: &str, range: &VersionSpecifiers) -> Result<Version, String> {
    let files = pypi::files(&http_agent(), name).map_err(|e| e.what().to_owned())?;
    let versions = files
        .iter()
        .filter(|f| !f.yanked)
        .filter_map(|f| f.filename.parse::<crate::wheel::Name>().ok()?.parsed_version())
        .filter(|v| !v.any_prerelease() && range.contains(v));
    versions.max().ok_or_else(|| "the package index has no wheel within that range".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_outlives_its_pin() {
        let version = Version::from_str("1.2").unwrap();
        assert_eq!(repinned("a-b==1.0; python_version < '3.15'", &version), "a-b==1.2; python_version < '3.15'");
        assert_eq!(repinned("a==1.0", &version), "a==1.2");
        assert_eq!(pin("Scikit_Build.core==1.1.1").unwrap().0, "scikit-build-core");
    }
}
