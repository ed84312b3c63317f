//! RECORD: the list of a wheel's files with their digests (the binary distribution format, and
//! "Recording installed projects"): `path,sha256=<URL-safe base64 without padding>,size`.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Path in the wheel.
    pub path: String,
    /// SHA-256, where the line states one.
    pub sha256: Option<[u8; 32]>,
    /// Bytes, where the line states them.
    pub size: Option<u64>,
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
    rows(text)?
        .into_iter()
        .enumerate()
        .filter(|(_, row)| !row.iter().all(String::is_empty))
        .map(|(i, row)| {
            let bad = |why: &str| format!("line {} of RECORD: {why}", i + 1);
            let [path, digest, size] = &row[..] else { return Err(bad("not three fields")) };
            let sha256 = match digest.as_str() {
                "" => None,
                text => match text.strip_prefix("sha256=") {
                    Some(b) => Some(
                        URL_SAFE_NO_PAD
                            .decode(b)
                            .ok()
                            .and_then(|d| d.try_into().ok())
                            .ok_or_else(|| bad("not a SHA-256 in URL-safe base64"))?,
                    ),
                    None => return Err(bad("a digest that is not SHA-256")),
                },
            };
            let size = match size.as_str() {
                "" => None,
                text => Some(text.parse().map_err(|_| bad("a size that is no number"))?),
            };
            Ok(Entry { path: path.clone(), sha256, size })
        })
        .collect()
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
        if let (Some(stated), Some(found)) = (entry.sha256, digests.get(&entry.path))
            && stated != *found
        {
            let (stated, found) = (hex::encode(stated), hex::encode(found));
            return Err(format!("RECORD says that '{}' has the SHA-256 {stated}; it has {found}", entry.path));
        }
    }
    Ok(())
}

/// Rows and fields of CSV (RFC 4180).
fn rows(text: &str) -> Result<Vec<Vec<String>>, String> {
    let (mut rows, mut row, mut field) = (Vec::new(), Vec::new(), String::new());
    let mut quoted = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' if quoted => quoted = false,
            '"' if field.is_empty() => quoted = true,
            ',' if !quoted => row.push(std::mem::take(&mut field)),
            '\r' if !quoted && chars.peek() == Some(&'\n') => {}
            '\n' if !quoted => {
                row.push(std::mem::take(&mut field));
                rows.push(std::mem::take(&mut row));
            }
            c => field.push(c),
        }
    }
    if quoted {
        return Err("RECORD ends inside a quoted field".into());
    }
    if !field.is_empty() || !row.is_empty() {
        row.push(field);
        rows.push(row);
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(files in prop::collection::vec(("[ -~]{1,20}", any::<[u8; 32]>(), any::<u64>()), 0..8)) {
            let text: String = files.iter().map(|(p, d, s)| line(p, d, *s)).collect::<String>() + &own_line("x/RECORD");
            let mut wanted: Vec<Entry> = files.iter().map(|(p, d, s)| Entry { path: p.clone(), sha256: Some(*d), size: Some(*s) }).collect();
            wanted.push(Entry { path: "x/RECORD".into(), sha256: None, size: None });
            prop_assert_eq!(parse(&text).unwrap(), wanted);
        }

        #[test]
        fn nothing_makes_it_panic(text in "\\PC{0,200}") {
            let _ = parse(&text);
        }
    }

    #[test]
    fn the_digest_is_base64_without_padding_in_the_url_safe_alphabet() {
        let text = line("a", &[0xfb; 32], 3);
        assert_eq!(text, "a,sha256=-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_v7-_s,3\n");
    }
}
