//! File names of wheels: `{distribution}-{version}(-{build})?-{python}-{abi}-{platform}.whl`
//! (the binary distribution format, "File name convention").

use std::str::FromStr;

use pep440_rs::Version;

/// A wheel's file name, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// Normalized project name (PEP 503).
    pub project: String,
    /// The project's name as written.
    pub distribution: String,
    /// The version as written.
    pub version: String,
    /// The build tag, if there is one: it breaks ties between wheels of one version.
    pub build: Option<String>,
    /// Python tags (PEP 425), joined by dots.
    pub python: String,
    /// ABI tags (PEP 425), joined by dots.
    pub abi: String,
    /// Platform tags (PEP 425, 600, 656), joined by dots.
    pub platform: String,
}

impl Name {
    /// Python, ABI and platform tags, as a name or WHEEL has them: `cp311-cp311-linux_x86_64`.
    pub fn tag(&self) -> String {
        format!("{}-{}-{}", self.python, self.abi, self.platform)
    }

    /// What orders wheels that are alike but for their build tags (PEP 427): the number that it begins with, then the rest.
    /// One without comes before all.
    pub fn build_order(&self) -> Option<(u64, String)> {
        let tag = self.build.as_deref()?;
        let (number, rest) = tag.split_at(tag.find(|c: char| !c.is_ascii_digit()).unwrap_or(tag.len()));
        number.parse().ok().map(|number| (number, rest.to_owned()))
    }

    /// The version, parsed.
    pub fn parsed_version(&self) -> Option<Version> {
        Version::from_str(&self.version).ok()
    }

    /// Whether `name` and `version`, as METADATA or a folder's name has them, are this wheel's.
    pub fn is_of(&self, name: &str, version: &str) -> bool {
        let same = matches!((Version::from_str(version), self.parsed_version()), (Ok(a), Some(b)) if a == b);
        same && normalize(name) == self.project
    }
}

/// Longest name of a wheel: the longest of a file, less what the names of those beside it end with.
const LONGEST: usize = 255 - ".provenance.dsse.json".len();

impl FromStr for Name {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        // Beside the file stands what is called like it and more.
        if name.len() > LONGEST {
            return Err(format!("a name of {} letters is too long for a file: up to {LONGEST} are read", name.len()));
        }
        let stem = name.strip_suffix(".whl").ok_or_else(|| format!("'{name}' does not end with .whl"))?;
        let fits = |c: char| c.is_ascii_alphanumeric() || "._-+!".contains(c);
        if let Some(bad) = name.chars().find(|c| !fits(*c)) {
            return Err(format!("'{name}' holds {bad:?}, which no wheel's name does (PEP 427)"));
        }
        let parts: Vec<&str> = stem.split('-').collect();
        let (distribution, version, build, tags) = match parts[..] {
            [d, v, p, a, l] => (d, v, None, [p, a, l]),
            [d, v, build, p, a, l] if build.starts_with(|c: char| c.is_ascii_digit()) => (d, v, Some(build), [p, a, l]),
            _ => return Err(format!("'{name}' is not NAME-VERSION-PYTHON-ABI-PLATFORM.whl (PEP 427)")),
        };
        let end = |c: char| c.is_ascii_alphanumeric();
        let named = |c: char| c.is_ascii_alphanumeric() || "._".contains(c);
        if !distribution.chars().all(named) || !distribution.ends_with(end) && !distribution.is_empty() {
            return Err(format!("'{name}': '{distribution}' is no project's name (PEP 508)"));
        }
        let build_is_one = build.is_none_or(|b| {
            let digits = b.find(|c: char| !c.is_ascii_digit()).unwrap_or(b.len());
            b[..digits].parse::<u64>().is_ok() && b.chars().all(named)
        });
        if !build_is_one || !tags.iter().all(|t| t.chars().all(named)) {
            return Err(format!("'{name}' has a build or a tag of other letters than PEP 427 and PEP 425 have"));
        }
        if distribution.is_empty()
            || !distribution.starts_with(end)
            || tags.iter().flat_map(|t| t.split('.')).any(str::is_empty)
        {
            return Err(format!("'{name}' has an empty part (PEP 427)"));
        }
        Version::from_str(version).map_err(|e| format!("'{name}': '{version}' is no version (PEP 440): {e}"))?;
        let [python, abi, platform] = tags.map(str::to_owned);
        Ok(Self {
            project: normalize(distribution),
            distribution: distribution.to_owned(),
            version: version.to_owned(),
            build: build.map(str::to_owned),
            python,
            abi,
            platform,
        })
    }
}

/// A project's name as indexes compare it (PEP 503).
pub fn normalize(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        if matches!(c, '-' | '_' | '.') {
            if !out.ends_with('-') {
                out.push('-');
            }
        } else {
            out.extend(c.to_lowercase());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(name: &str) -> Name {
        name.parse().unwrap()
    }

    #[test]
    fn names_are_normalized_as_pep_503_says() {
        assert_eq!(normalize("Ty.Ping__Extensions"), "ty-ping-extensions");
    }

    #[test]
    fn names_are_taken_apart_as_pep_427_says() {
        let n = parsed("torch-2.6.0+cpu.libuv-cp311-cp311-manylinux_2_35_x86_64.whl");
        assert_eq!((n.project.as_str(), n.version.as_str()), ("torch", "2.6.0+cpu.libuv"));
        assert_eq!((n.python.as_str(), n.platform.as_str()), ("cp311", "manylinux_2_35_x86_64"));
        assert_eq!(n.tag(), "cp311-cp311-manylinux_2_35_x86_64");
        let n = parsed("My_Project.x-1.0-1build-py3-none-any.whl");
        assert_eq!((n.project.as_str(), n.build.as_deref()), ("my-project-x", Some("1build")));
    }

    #[test]
    fn builds_are_ordered_by_their_number_then_by_the_rest() {
        let order = |build: &str| parsed(&format!("x-1.0{build}-py3-none-any.whl")).build_order();
        let builds = ["", "-0", "-01a", "-1b", "-2", "-10"].map(order);
        assert!(builds.is_sorted() && builds[0].is_none() && builds[3] == Some((1, "b".into())), "{builds:?}");
    }

    #[test]
    fn what_is_no_wheels_name_is_refused() {
        for bad in [
            "torch.whl",
            "torch-2.6.0.tar.gz",
            "../torch-2.6.0-py3-none-any.whl",
            "torch-not.a.version-py3-none-any.whl",
            "torch-1.0-x-py3-none-any.whl",
            "-1.0-py3-none-any.whl",
            "torch-1.0-py3--any.whl",
            "torch-1.0-py3.-none-any.whl",
            "to\nrch-1.0-py3-none-any.whl",
            "törch-1.0-py3-none-any.whl",
        ] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_name_makes_it_panic_or_leave_its_folder(name in "\\PC{0,60}") {
            if let Ok(parsed) = name.parse::<Name>() {
                proptest::prop_assert!(!name.contains('/') && !name.contains('\\'));
                proptest::prop_assert!(parsed.project.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'));
                proptest::prop_assert!(parsed.parsed_version().is_some());
            }
        }
    }
}
