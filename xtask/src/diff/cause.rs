//! Why two builds of one thing come out different: the causes that the field knows
//! (reproducible-builds.org, "Sources of unreproducibility"), told from the bytes that differ.

use std::fmt;

use serde::Serialize;

/// What builds most often differ by, told from the bytes that differ: likely, not proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// A path of the machine that built it.
    EmbeddedPath,
    /// A date or a time.
    TimeStamp,
    /// A build id: a digest of what was linked, or of what was not stripped.
    BuildId,
    /// Other order of the same members.
    MemberOrder,
    /// Same contents, packed by other means.
    Compression,
    /// The same file with other permissions.
    Mode,
    /// The same file of another user or group.
    Owner,
    /// Another program, or version of it, wrote the archive.
    ArchiveTool,
    /// Another compiler or linker.
    Toolchain,
    /// Something was compiled, or laid out, otherwise.
    Code,
    /// It says what others are, so it differs because they do.
    Follows,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EmbeddedPath => "an embedded path",
            Self::TimeStamp => "a time stamp",
            Self::BuildId => "a build id",
            Self::MemberOrder => "the order of members",
            Self::Compression => "compression",
            Self::Mode => "file modes",
            Self::Owner => "owners",
            Self::ArchiveTool => "the program that wrote the archive",
            Self::Toolchain => "another compiler or linker",
            Self::Code => "code that was compiled otherwise",
            Self::Follows => "it follows from the others",
        })
    }
}

/// The cause that two texts at the same place show.
pub fn of_texts(a: &str, b: &str) -> Option<Cause> {
    let both = |test: fn(&str) -> bool| test(a) && test(b);
    if both(has_time) {
        Some(Cause::TimeStamp)
    } else if both(has_path) {
        Some(Cause::EmbeddedPath)
    } else if both(|t| t.contains("GCC: (") || t.contains("clang version") || t.contains("GNU ld")) {
        Some(Cause::Toolchain)
    } else {
        None
    }
}

/// `/a/b` or `C:\a`: two segments at least, so that a division is none.
fn has_path(text: &str) -> bool {
    let segment = |c: char| c.is_ascii_alphanumeric() || "._-+~".contains(c);
    let unix = text.match_indices('/').any(|(i, _)| {
        let before = text[..i].chars().next_back();
        let rest = &text[i + 1..];
        let first = rest.find(|c| !segment(c)).unwrap_or(rest.len());
        before.is_none_or(|c| !segment(c)) && first > 0 && rest[first..].starts_with('/')
    });
    let bytes = text.as_bytes();
    let windows =
        bytes.windows(3).any(|w| w[0].is_ascii_alphabetic() && w[1] == b':' && (w[2] == b'\\' || w[2] == b'/'));
    unix || windows && !text.contains("://")
}

/// `12:34:56`, `2025-01-29`, `Jan 29 2025` (what `__DATE__` writes).
fn has_time(text: &str) -> bool {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let shape: Vec<u8> = text.bytes().map(|b| if b.is_ascii_digit() { b'9' } else { b }).collect();
    let contains = |needle: &[u8]| shape.windows(needle.len()).any(|w| w == needle);
    let named = MONTHS.iter().any(|m| {
        text.match_indices(m).any(|(i, _)| {
            let rest = &text.as_bytes()[i + 3..];
            rest.len() >= 8 && rest[0] == b' ' && rest[4..8].iter().all(u8::is_ascii_digit)
        })
    });
    contains(b"99:99:99") || contains(b"9999-99-99") || named
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_show_their_cause() {
        for (a, b, cause) in [
            ("/home/a/src/x.cpp", "/build/y/src/x.cpp", Some(Cause::EmbeddedPath)),
            ("built Jan 29 2025", "built Feb  1 2025", Some(Cause::TimeStamp)),
            ("at 12:00:01", "at 12:00:02", Some(Cause::TimeStamp)),
            ("2025-01-29", "2026-11-24", Some(Cause::TimeStamp)),
            ("GCC: (Debian 12.2.0)", "GCC: (Debian 13.1.0)", Some(Cause::Toolchain)),
            ("a/b", "c/d", None),
            ("C:\\x\\y", "D:\\x\\y", Some(Cause::EmbeddedPath)),
            ("one", "two", None),
        ] {
            assert_eq!(of_texts(a, b), cause, "{a} | {b}");
        }
    }
}
