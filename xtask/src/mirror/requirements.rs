//! A requirements file as pip and uv write it with hashes: which release of which project, and which bytes it may be.

use std::path::Path;

use pep508_rs::{Requirement, VerbatimUrl};

use crate::error::{Error, Result};
use crate::platform::read_text;
use crate::recipe::{first_line, pinned};

/// Largest file that is read, bytes.
const MOST: u64 = 16 << 20;

/// One line of a requirements file that names an exact version.
#[derive(Debug)]
pub struct Pinned {
    /// The requirement, with its marker.
    pub requirement: Requirement<VerbatimUrl>,
    /// Its exact version.
    pub version: String,
    /// SHA-256 of the files that it may be; empty where the file names none.
    pub sha256: Vec<String>,
}

/// Reads `NAME==VERSION`, with extras and marker if need be.
///
/// # Errors
/// Bad input: no exact version.
pub fn exact(text: &str) -> Result<(Requirement<VerbatimUrl>, String)> {
    let bad = |why: String| {
        Error::misuse("requirement", format!("'{text}' names no exact version{why}")).next("write NAME==VERSION")
    };
    let requirement = crate::recipe::requirement(text).map_err(|e| bad(format!(": {}", first_line(&e))))?;
    let version = pinned(&requirement).ok_or_else(|| bad(String::new()))?;
    Ok((requirement, version))
}

/// Reads the file at `path`.
///
/// # Errors
/// Bad input: a line that does not pin a version and its bytes.
pub fn read(path: &Path) -> Result<Vec<Pinned>> {
    let text = read_text(path, MOST)
        .map_err(|e| Error::misuse("requirements", format!("{} cannot be read: {e}", path.display())))?;
    parse(&text).map_err(|e| e.doing(format!("reading {}", path.display())))
}

/// Reads the text of such a file.
///
/// # Errors
/// Bad input: as [`read`].
pub fn parse(text: &str) -> Result<Vec<Pinned>> {
    let text = text.trim_start_matches('\u{feff}');
    let mut whole = String::with_capacity(text.len());
    for line in text.lines() {
        // A comment goes on nowhere, whatever it ends with (pip, `join_lines`): the line after it is one of its own.
        let begun = line.strip_suffix('\\').filter(|_| !line.trim_start().starts_with('#'));
        whole.push_str(begun.unwrap_or(line));
        whole.push(if begun.is_some() { ' ' } else { '\n' });
    }
    let lines = whole.lines().map(|l| l.split_once(" #").map_or(l, |(before, _)| before).trim());
    lines.filter(|l| !l.is_empty() && !l.starts_with('#')).map(line).collect()
}

fn line(text: &str) -> Result<Pinned> {
    if text.starts_with('-') {
        return Err(Error::misuse("requirements", format!("'{text}' is an option; only pinned requirements are read"))
            .next("write the file with `uv export` or `pip-compile --generate-hashes`"));
    }
    let (requirement, options) = text.split_once(" --").map_or((text, ""), |(r, o)| (r, o));
    let (requirement, version) = exact(requirement.trim())?;
    let mut sha256 = Vec::new();
    for option in options.split_whitespace() {
        let hash = option.trim_start_matches("--").strip_prefix("hash=sha256:").map(str::to_ascii_lowercase);
        match hash.filter(|h| h.len() == 64 && h.chars().all(|c| c.is_ascii_hexdigit())) {
            Some(hash) => sha256.push(hash),
            None => {
                let what = format!("'{option}' of {} is no --hash=sha256:DIGEST", requirement.name);
                return Err(Error::misuse("requirements", what));
            }
        }
    }
    if sha256.is_empty() {
        return Err(Error::misuse("requirements", format!("{}=={version} has no --hash", requirement.name))
            .next("write the file with `uv export` or `pip-compile --generate-hashes`"));
    }
    Ok(Pinned { requirement, version, sha256 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pip_compile_writes_is_read() {
        let (a, b) = ("a".repeat(64), "B".repeat(64));
        let text = format!(
            "# by C:\\\nfilelock==3.13.1 \\\n    --hash=sha256:{a} \\\n    --hash=sha256:{b}\n    # via torch\n\n\
             torch==2.6.0+cpu.libuv ; python_version < '3.13' --hash=sha256:{a} # ours\n"
        );
        let read = parse(&text).unwrap();
        assert_eq!(read.len(), 2);
        assert_eq!((read[0].version.as_str(), &read[0].sha256), ("3.13.1", &vec![a.clone(), "b".repeat(64)]));
        assert_eq!(
            (read[1].requirement.name.to_string().as_str(), read[1].version.as_str()),
            ("torch", "2.6.0+cpu.libuv")
        );
    }

    #[test]
    fn a_line_that_pins_no_bytes_is_refused_and_named() {
        for (line, why) in [
            ("filelock==1", "filelock==1 has no --hash"),
            ("filelock>=1 --hash=sha256:00", "'filelock>=1' names no exact version"),
            ("filelock==1 --hash=sha256:00", "is no --hash=sha256:DIGEST"),
            ("filelock==1 --hash=md5:00", "is no --hash=sha256:DIGEST"),
            ("-r other.txt", "is an option"),
            ("@ bad", "names no exact version"),
        ] {
            let e = parse(line).unwrap_err();
            assert!(e.what().contains(why), "{line}: {e}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(a==1|--hash=sha256:|[ -~]{1,3}|\\\\\n|\n| ){0,20}") {
            let _ = parse(&text);
        }
    }
}
