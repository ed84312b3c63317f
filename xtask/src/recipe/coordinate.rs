//! Coordinates: where bytes can be had, without naming a registry's host.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where a source can be had.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub enum Coordinate {
    /// `git+https://…#<commit>` or `git+file:///…#<commit>`.
    Git {
        /// The repository's URL, without the `git+`.
        url: String,
        /// The full commit id, 40 hexadecimal digits.
        commit: String,
    },
    /// `https://…` (and `http://…` for a server of one's own: the digest judges the bytes).
    Http(String),
    /// `file:<path>`; a relative path is relative to the repository's root.
    File(String),
    /// `debian:<pool path>`: on the mirror that the machine's APT names.
    Debian(String),
    /// `pypi:<name>/<version>/<file>`: on the index that pip is configured with.
    Pypi {
        /// Project name.
        name: String,
        /// Version, as the registry spells it.
        version: String,
        /// File name.
        file: String,
    },
    /// `crate:<name>/<version>`: from cargo's registry.
    Crate {
        /// Crate name.
        name: String,
        /// Version, as the registry spells it.
        version: String,
    },
}

impl Coordinate {
    /// The file name that the bytes go by, for people and for telling archive formats apart.
    pub fn file_name(&self) -> String {
        let last = |s: &str| {
            let s = s.split(['?', '#']).next().unwrap_or(s).trim_end_matches('/');
            match s.split_once("://") {
                // Of an address without a path it is the host, and not who asks it.
                Some((_, host)) if !host.contains('/') => host.rsplit('@').next().unwrap_or(host).to_owned(),
                _ => s.rsplit('/').next().unwrap_or(s).to_owned(),
            }
        };
        match self {
            Self::Git { url, commit } => {
                format!("{}-{}.git", last(url).trim_end_matches(".git"), &commit[..12])
            }
            Self::Http(u) | Self::File(u) | Self::Debian(u) => last(u),
            Self::Pypi { file, .. } => file.clone(),
            Self::Crate { name, version } => format!("{name}-{version}.crate"),
        }
    }

    /// Whether getting it touches the network.
    pub fn is_remote(&self) -> bool {
        match self {
            Self::File(_) => false,
            Self::Git { url, .. } => !url.starts_with("file:"),
            _ => true,
        }
    }
}

fn safe_segment(s: &str) -> bool {
    !s.is_empty() && s != "." && s != ".." && s.chars().all(|c| c.is_ascii_alphanumeric() || "._-+~!".contains(c))
}

impl FromStr for Coordinate {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let bad = |why: &str| Err(format!("'{s}' is not a coordinate: {why}"));
        if let Some(rest) = s.strip_prefix("git+") {
            let Some((url, commit)) = rest.rsplit_once('#') else {
                return bad("a git coordinate ends with '#' and the full commit id");
            };
            if !url.starts_with("https://") && !url.starts_with("file://") && !url.starts_with("http://") {
                return bad("git+https:// and git+file:// are known");
            }
            if commit.len() != 40 || !commit.bytes().all(|b| b.is_ascii_hexdigit()) {
                return bad("the commit must be 40 hexadecimal digits (a branch or tag can move)");
            }
            return Ok(Self::Git { url: url.to_owned(), commit: commit.to_ascii_lowercase() });
        }
        if s.starts_with("https://") || s.starts_with("http://") {
            return Ok(Self::Http(s.to_owned()));
        }
        if let Some(path) = s.strip_prefix("file:") {
            if path.is_empty() {
                return bad("the path is empty");
            }
            return Ok(Self::File(path.strip_prefix("//").unwrap_or(path).to_owned()));
        }
        if let Some(path) = s.strip_prefix("debian:") {
            if !path.split('/').all(safe_segment) || path.split('/').count() < 4 {
                return bad("expected debian:<component>/<letter>/<source>/<file>, as in the pool");
            }
            return Ok(Self::Debian(path.to_owned()));
        }
        if let Some(rest) = s.strip_prefix("pypi:") {
            let parts: Vec<_> = rest.split('/').collect();
            return match parts[..] {
                [name, version, file] if parts.iter().all(|p| safe_segment(p)) => {
                    Ok(Self::Pypi { name: name.to_owned(), version: version.to_owned(), file: file.to_owned() })
                }
                _ => bad("expected pypi:<name>/<version>/<file>"),
            };
        }
        if let Some(rest) = s.strip_prefix("crate:") {
            return match rest.split_once('/') {
                Some((name, version)) if safe_segment(name) && safe_segment(version) => {
                    Ok(Self::Crate { name: name.to_owned(), version: version.to_owned() })
                }
                _ => bad("expected crate:<name>/<version>"),
            };
        }
        bad("it begins with none of git+https://, git+file://, https://, file:, debian:, pypi:, crate:")
    }
}

impl fmt::Display for Coordinate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Git { url, commit } => write!(f, "git+{url}#{commit}"),
            Self::Http(url) => f.write_str(url),
            Self::File(path) => write!(f, "file:{path}"),
            Self::Debian(path) => write!(f, "debian:{path}"),
            Self::Pypi { name, version, file } => write!(f, "pypi:{name}/{version}/{file}"),
            Self::Crate { name, version } => write!(f, "crate:{name}/{version}"),
        }
    }
}

impl TryFrom<String> for Coordinate {
    type Error = String;
    fn try_from(s: String) -> Result<Self, String> {
        s.parse()
    }
}

impl From<Coordinate> for String {
    fn from(c: Coordinate) -> Self {
        c.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_branch_is_not_a_commit() {
        let e = "git+https://example.org/x.git#main".parse::<Coordinate>().unwrap_err();
        assert!(e.contains("40 hexadecimal"), "{e}");
    }

    #[test]
    fn a_file_name_has_no_password() {
        let name = |text: &str| text.parse::<Coordinate>().unwrap().file_name();
        assert_eq!(name("https://bob:s3cret@h/"), "h");
        assert_eq!(name("https://s3cret@h?x=y"), "h");
        assert_eq!(name(&format!("git+http://bob:s3cret@h#{}", "a".repeat(40))), "h-aaaaaaaaaaaa.git");
        assert_eq!(name("https://bob:s3cret@h/x/y@1.tgz"), "y@1.tgz");
    }

    #[test]
    fn a_debian_path_cannot_leave_the_pool() {
        assert!("debian:main/../../etc/passwd".parse::<Coordinate>().is_err());
        assert!("pypi:a/1/../b".parse::<Coordinate>().is_err());
    }

    proptest! {
        #[test]
        fn parsing_what_was_printed_gives_the_same(
            name in "[a-z][a-z0-9-]{0,12}", version in "[0-9]\\.[0-9]{1,3}", commit in "[0-9a-f]{40}"
        ) {
            for text in [
                format!("crate:{name}/{version}"),
                format!("pypi:{name}/{version}/{name}-{version}.tar.gz"),
                format!("debian:main/p/{name}/{name}_{version}.orig.tar.xz"),
                format!("git+https://example.org/{name}.git#{commit}"),
            ] {
                let c: Coordinate = text.parse().unwrap();
                prop_assert_eq!(c.to_string(), text);
            }
        }

        #[test]
        fn no_input_makes_the_parser_panic(text in "\\PC{0,60}") {
            let _ = text.parse::<Coordinate>();
        }
    }
}
