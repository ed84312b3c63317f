//! What makes two files the same release, however their names are spelled: normalized project, version as PEP 440
//! understands it, build tag, tags. An installer that is offered two spellings takes either.

use std::collections::BTreeSet;
use std::str::FromStr;

use pep440_rs::Version;

use crate::mirror::wheel::Name;

/// A release file's identity.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    project: String,
    version: Version,
    /// Number and rest (PEP 427: sorted as such, so `01` is `1`).
    build: Option<(String, String)>,
    /// Pythons, ABIs, platforms: a compressed set (PEP 425) names the same tags in any order.
    tags: [BTreeSet<String>; 3],
}

/// A platform tag by its name of today: PEP 600 calls the former ones aliases.
fn current(tag: &str) -> String {
    let former = [
        ("manylinux1_", "manylinux_2_5_"),
        ("manylinux2010_", "manylinux_2_12_"),
        ("manylinux2014_", "manylinux_2_17_"),
    ];
    let found = former.iter().find_map(|(old, new)| Some(format!("{new}{}", tag.strip_prefix(old)?)));
    found.unwrap_or_else(|| tag.to_owned())
}

impl Identity {
    /// Of a wheel's name; `None` for a version that is none.
    pub fn of(name: &Name) -> Option<Self> {
        let set = |tags: &str| tags.split('.').map(|tag| current(&tag.to_ascii_lowercase())).collect();
        Some(Self {
            project: name.project.clone(),
            version: Version::from_str(&name.version).ok()?,
            build: name.build.as_deref().map(|b| {
                let rest = b.trim_start_matches(|c: char| c.is_ascii_digit());
                let number = b[..b.len() - rest.len()].trim_start_matches('0');
                (number.to_owned(), rest.to_ascii_lowercase())
            }),
            tags: [&name.python, &name.abi, &name.platform].map(|t| set(t)),
        })
    }

    /// The identity of the wheel of this name; `None` where it is no wheel's name.
    pub fn parse(filename: &str) -> Option<Self> {
        filename.parse::<Name>().ok().as_ref().and_then(Self::of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_release_has_many_spellings() {
        let of = |name: &str| Identity::parse(name).unwrap();
        let one = of("my_project-1.0-1-py2.py3-none-any.whl");
        for other in [
            "My.Project-1.0-1-py2.py3-none-any.whl",
            "my_project-1.0.0-1-py2.py3-none-any.whl",
            "my_project-v1-01-py3.py2-none-any.whl",
            "my__project-1.0-1-PY2.py3-None-ANY.whl",
        ] {
            assert_eq!(of(other), one, "{other}");
        }
        assert_eq!(of("x-1-py3-none-manylinux2014_x86_64.whl"), of("x-1-py3-none-manylinux_2_17_x86_64.whl"));
        assert_eq!(of("x-1.0rc1+CPU.Libuv-py3-none-any.whl"), of("x-1.0.RC1+cpu_libuv-py3-none-any.whl"));
        for other in [
            "my_project-1.0-py2.py3-none-any.whl",
            "my_project-1.0-2-py2.py3-none-any.whl",
            "my_project-1.0-1-py3-none-any.whl",
            "my_project-1.0+x-1-py2.py3-none-any.whl",
            "my_project-1.0.1-1-py2.py3-none-any.whl",
        ] {
            assert_ne!(of(other), one, "{other}");
        }
    }
}
