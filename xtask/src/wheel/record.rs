//! RECORD: the list of a wheel's files with their digests (the binary distribution format, and
//! "Recording installed projects"): `path,sha256=<URL-safe base64 without padding>,size`.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Most lines: a wheel is read with at most 400,000 files.
const MOST_LINES: usize = 500_000;
/// Most commas: a line has two, and those in its path.
const MOST_COMMAS: usize = 4 * MOST_LINES;
/// Most bytes of what a line says: a name in a zip archive has at most 65,535.
const LONGEST_LINE: usize = 1 << 17;

/// One line of RECORD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Path in the wheel, with `/`.
    pub path: String,
    /// The digest, where the line states one.
    pub digest: Option<Digest>,
    /// Bytes, where the line states them.
    pub size: Option<u64>,
}

/// A digest: SHA-256 or better. Anything less proves nothing, and is not read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Digest {
    /// SHA-256.
    Sha256([u8; 32]),
    /// SHA-384.
    Sha384([u8; 48]),
    /// SHA-512.
    Sha512([u8; 64]),
}

impl Digest {
    fn parse(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once('=').ok_or("a digest without a name")?;
        let bytes = URL_SAFE_NO_PAD.decode(value).ok();
        let no = || format!("not a {name} in URL-safe base64");
        match name {
            "sha256" => bytes.and_then(|b| b.try_into().ok()).map(Self::Sha256).ok_or_else(no),
            "sha384" => bytes.and_then(|b| b.try_into().ok()).map(Self::Sha384).ok_or_else(no),
            "sha512" => bytes.and_then(|b| b.try_into().ok()).map(Self::Sha512).ok_or_else(no),
            other => {
                Err(format!("a digest by '{}', which proves nothing; SHA-256 or better does", other.escape_debug()))
            }
        }
    }

    /// Its name and its bytes, for people.
    pub fn shown(&self) -> (&'static str, String) {
        match self {
            Self::Sha256(d) => ("SHA-256", hex::encode(d)),
            Self::Sha384(d) => ("SHA-384", hex::encode(d)),
            Self::Sha512(d) => ("SHA-512", hex::encode(d)),
        }
    }
}

/// The line for a file.
pub fn line(path: &str, sha256: &[u8; 32], size: u64) -> String {
    format!("{},sha256={},{size}\n", quoted(path), URL_SAFE_NO_PAD.encode(sha256))
}

/// The line for RECORD itself, which cannot hold its own digest.
pub fn own_line(path: &str) -> String {
    format!("{},,\n", quoted(path))
}

fn quoted(field: &str) -> String {
    if field.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}

/// Reads a RECORD file.
///
/// # Errors
/// The number of the first line that is none, and why.
pub fn parse(text: &str) -> Result<Vec<Entry>, String> {
    // The CSV reader drops a byte order mark; others take it for a part of the first path.
    if text.starts_with('\u{feff}') {
        return Err("RECORD begins with a byte order mark".into());
    }
    // What is kept of a line or a field is more than its bytes.
    for (what, mark, most) in [("lines", b'\n', MOST_LINES), ("commas", b',', MOST_COMMAS)] {
        if memchr::memchr_iter(mark, text.as_bytes()).count() > most {
            return Err(format!("RECORD has more than {most} {what}"));
        }
    }
    // It skips empty lines too, at which pip breaks off.
    let lines = text.strip_suffix('\n').unwrap_or(text).split('\n');
    if !text.is_empty()
        && let Some(at) = lines.clone().map(|l| l.strip_suffix('\r').unwrap_or(l)).position(str::is_empty)
    {
        return Err(format!("line {} of RECORD is empty", at + 1));
    }
    // A line's end to some readers, and a part of a path to others.
    if let Some(at) = lines.map(|l| l.strip_suffix('\r').unwrap_or(l)).position(|l| l.contains('\r')) {
        return Err(format!("line {} of RECORD holds a bare carriage return", at + 1));
    }
    let mut rows = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
    let mut entries = Vec::new();
    for row in rows.records() {
        let row = row.map_err(|e| format!("RECORD cannot be read: {e}"))?;
        let at = row.position().map_or(0, csv::Position::line);
        let bad = |why: &str| format!("line {at} of RECORD: {why}");
        if row.as_slice().len() > LONGEST_LINE {
            return Err(bad(&format!("it says more than {LONGEST_LINE} bytes")));
        }
        let fields: Vec<&str> = row.iter().collect();
        let [path, digest, size] = fields[..] else { return Err(bad("not three fields")) };
        let digest = match digest {
            "" => None,
            text => Some(Digest::parse(text).map_err(|why| bad(&why))?),
        };
        let size = match size {
            "" => None,
            // A sign or a blank is a number to some readers only.
            text if text.bytes().all(|b| b.is_ascii_digit()) => {
                Some(text.parse().map_err(|_| bad("a size that is no number"))?)
            }
            _ => return Err(bad("a size that is no number")),
        };
        entries.push(Entry { path: path.to_owned(), digest, size });
    }
    Ok(entries)
}

/// Holds RECORD against what is known of a wheel: `sizes` of all its members by path, digests of those
/// that were read.
///
/// # Errors
/// The first lie, in a sentence.
pub fn hold(text: &str, sizes: &BTreeMap<&str, u64>, digests: &BTreeMap<String, [u8; 32]>) -> Result<(), String> {
    for entry in parse(text)? {
        let Some(&size) = sizes.get(entry.path.as_str()) else {
            return Err(format!("RECORD lists '{}', which is not in the wheel", entry.path));
        };
        if let Some(stated) = entry.size
            && stated != size
        {
            return Err(format!("RECORD says that '{}' has {stated} bytes; it has {size}", entry.path));
        }
        if let (Some(Digest::Sha256(stated)), Some(found)) = (entry.digest, digests.get(&entry.path))
            && stated != *found
        {
            let (stated, found) = (hex::encode(stated), hex::encode(found));
            return Err(format!("RECORD says that '{}' has the SHA-256 {stated}; it has {found}", entry.path));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(files in prop::collection::vec(("[ -~]{1,20}", any::<[u8; 32]>(), any::<u64>()), 0..8)) {
            let text: String = files.iter().map(|(p, d, s)| line(p, d, *s)).collect::<String>() + &own_line("x/RECORD");
            let mut wanted: Vec<Entry> = files.iter().map(|(p, d, s)| Entry { path: p.clone(), digest: Some(Digest::Sha256(*d)), size: Some(*s) }).collect();
            wanted.push(Entry { path: "x/RECORD".into(), digest: None, size: None });
            prop_assert_eq!(parse(&text).unwrap(), wanted);
        }

        #[test]
        fn nothing_makes_it_panic(text in "\\PC{0,200}") {
            let _ = parse(&text);
        }
    }

    #[test]
    fn a_digest_that_proves_nothing_is_none() {
        assert!(parse("a,md5=AAAAAAAAAAAAAAAAAAAAAA,1\n").unwrap_err().contains("SHA-256 or better"));
        assert!(parse("a,sha1=AAAA,1\n").is_err());
        assert!(parse("a,sha256=AAAA,1\n").is_err());
        assert!(parse("a,,+1\n").is_err());
        assert!(parse("a,\n").is_err());
        let long = format!("a,sha512={},1\n", URL_SAFE_NO_PAD.encode([7; 64]));
        assert_eq!(parse(&long).unwrap()[0].digest, Some(Digest::Sha512([7; 64])));
    }

    #[test]
    fn more_than_a_wheel_can_have_is_refused_and_the_bound_is_named() {
        let refused = |text: String| parse(&text).unwrap_err();
        assert_eq!(refused("a,,\n".repeat(MOST_LINES + 1)), "RECORD has more than 500000 lines");
        assert_eq!(refused(",".repeat(MOST_COMMAS + 1)), "RECORD has more than 2000000 commas");
        let path = "a".repeat(LONGEST_LINE);
        assert!(parse(&format!("{path},,\n")).is_ok());
        assert!(refused(format!("x,,\n{path}a,,\n")).contains("line 2 of RECORD: it says more than 131072 bytes"));
    }

    #[test]
    fn the_digest_is_base64_without_padding_in_the_url_safe_alphabet() {
        let text = line("a", &[0xfb; 32], 3);
        assert_eq!(text, "a,sha256=-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_s,3\n");
    }
}
