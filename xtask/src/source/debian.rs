//! `debian:` coordinates: files of a Debian pool, on the mirror that the machine's APT names.

use std::path::Path;

use crate::error::{Error, Result};

/// Names a mirror for machines without APT, or another one than APT's: the URL above `pool/`.
pub const MIRROR_VARIABLE: &str = "TORCHMILL_DEBIAN_MIRROR";

/// The mirrors to try, in order.
///
/// # Errors
/// The world: APT names none, and neither does the environment.
pub fn mirrors() -> Result<Vec<String>> {
    if let Some(value) = std::env::var_os(MIRROR_VARIABLE).filter(|v| !v.is_empty()) {
        return Ok(value.to_string_lossy().split_whitespace().map(str::to_owned).collect());
    }
    let mut found = Vec::new();
    let dir = Path::new("/etc/apt");
    let mut files = vec![dir.join("sources.list")];
    if let Ok(entries) = std::fs::read_dir(dir.join("sources.list.d")) {
        let mut more: Vec<_> = entries.flatten().map(|e| e.path()).collect();
        more.sort();
        files.extend(more);
    }
    for file in files {
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        match file.extension().and_then(|e| e.to_str()) {
            Some("sources") => deb822_uris(&text, &mut found),
            Some("list") => one_line_uris(&text, &mut found),
            _ => {}
        }
    }
    found.retain(|u| u.starts_with("http://") || u.starts_with("https://") || u.starts_with("file:"));
    // The main archive before the security one: both have a pool.
    found.sort_by_key(|u| u.contains("security"));
    found.dedup();
    if found.is_empty() {
        return Err(Error::world("no-debian-mirror", "this machine's APT names no Debian mirror")
            .next(format!("set {MIRROR_VARIABLE} to the URL of a Debian mirror (the folder above pool/)")));
    }
    Ok(found)
}

fn deb822_uris(text: &str, out: &mut Vec<String>) {
    for stanza in text.split("\n\n") {
        let field = |name: &str| {
            stanza.lines().filter(|l| !l.starts_with('#')).find_map(|l| {
                let (key, value) = l.split_once(':')?;
                key.trim().eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
            })
        };
        if field("Enabled").is_some_and(|v| v.eq_ignore_ascii_case("no")) {
            continue;
        }
        for uri in field("URIs").unwrap_or_default().split_whitespace() {
            out.push(uri.trim_end_matches('/').to_owned());
        }
    }
}

fn one_line_uris(text: &str, out: &mut Vec<String>) {
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if !matches!(words.next(), Some("deb" | "deb-src")) {
            continue;
        }
        let mut in_options = false;
        for word in words {
            in_options |= word.starts_with('[');
            if !in_options {
                out.push(word.trim_end_matches('/').to_owned());
                break;
            }
            in_options = !word.ends_with(']');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_formats_of_apt_sources_are_read() {
        let mut found = Vec::new();
        deb822_uris(
            "Types: deb\nURIs: http://a.test/debian\nSuites: x\n\nEnabled: no\nURIs: http://off.test\n",
            &mut found,
        );
        one_line_uris(
            "# deb http://no.test x\ndeb [arch=amd64 signed-by=/k] http://b.test/debian/ bookworm main\n",
            &mut found,
        );
        assert_eq!(found, ["http://a.test/debian", "http://b.test/debian"]);
    }
}
