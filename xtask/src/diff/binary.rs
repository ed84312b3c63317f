//! Binaries: which sections differ, which symbols, and what the bytes look like there.

use std::collections::{BTreeMap, BTreeSet};

use object::{Object, ObjectSection, ObjectSymbol};

use super::{Cause, Finding, cause};

/// Symbols that are named in one finding.
const SHOWN: usize = 5;

/// The bytes of all sections, by name.
fn table<'d>(file: &object::File<'d>) -> BTreeMap<String, &'d [u8]> {
    let mut out = BTreeMap::new();
    for section in file.sections() {
        let name = section.name().unwrap_or("?").to_owned();
        let data = section.data().unwrap_or_default();
        // Object files have many sections of one name.
        let mut key = name.clone();
        let mut n = 2;
        while out.contains_key(&key) {
            key = format!("{name} ({n})");
            n += 1;
        }
        out.insert(key, data);
    }
    out
}

/// The sections that differ between two ELF, PE or Mach-O files; `None` where one is none.
pub fn sections(a: &[u8], b: &[u8]) -> Option<Vec<Finding>> {
    let (one, two) = (object::File::parse(a).ok()?, object::File::parse(b).ok()?);
    let (left, right) = (table(&one), table(&two));
    let mut out = Vec::new();
    for name in left.keys().chain(right.keys()).collect::<BTreeSet<_>>() {
        match (left.get(name), right.get(name)) {
            (Some(x), Some(y)) if x != y => {
                let mut finding = bytes(name, x, y);
                if name.contains("build-id") {
                    finding.cause = Some(Cause::BuildId);
                } else if name == ".comment" {
                    finding.cause = Some(Cause::Toolchain);
                } else if finding.cause.is_none() && is_code(name) {
                    finding.cause = Some(Cause::Code);
                }
                if x.len() == y.len()
                    && let Some(symbols) = symbols_at(&one, name, x, y)
                {
                    finding.what.push_str(&symbols);
                }
                out.push(finding);
            }
            (Some(_), None) => out.push(only(name, "first")),
            (None, Some(_)) => out.push(only(name, "second")),
            _ => {}
        }
    }
    out.extend(symbols(&one, &two));
    if out.is_empty() {
        out.push(bytes("headers", a, b));
    }
    Some(out)
}

fn only(name: &str, which: &str) -> Finding {
    Finding { place: name.to_owned(), what: format!("a section of the {which} file alone"), cause: None }
}

fn is_code(section: &str) -> bool {
    [".text", ".init", ".fini", ".plt", "__text"].iter().any(|s| section.starts_with(s))
}

/// Symbols that one file has and the other has not, and symbols of another size.
fn symbols(a: &object::File<'_>, b: &object::File<'_>) -> Vec<Finding> {
    let table = |file: &object::File<'_>| -> BTreeMap<String, u64> {
        file.symbols()
            .chain(file.dynamic_symbols())
            .filter(|s| s.is_definition())
            .filter_map(|s| Some((s.name().ok()?.to_owned(), s.size())))
            .filter(|(name, _)| !name.is_empty())
            .collect()
    };
    let (left, right) = (table(a), table(b));
    let list = |names: Vec<&String>| -> String {
        let shown: Vec<&str> = names.iter().take(SHOWN).map(|n| n.as_str()).collect();
        let more = names.len().saturating_sub(SHOWN);
        if more == 0 { shown.join(", ") } else { format!("{} and {more} more", shown.join(", ")) }
    };
    let mut out = Vec::new();
    for (x, y, which) in [(&left, &right, "first"), (&right, &left, "second")] {
        let alone: Vec<&String> = x.keys().filter(|n| !y.contains_key(*n)).collect();
        if !alone.is_empty() {
            let what = format!("{} of the {which} file alone: {}", alone.len(), list(alone));
            out.push(Finding { place: "symbols".into(), what, cause: Some(Cause::Code) });
        }
    }
    let resized: Vec<&String> =
        left.iter().filter(|(n, s)| right.get(*n).is_some_and(|o| o != *s)).map(|(n, _)| n).collect();
    if !resized.is_empty() {
        let what = format!("{} of another size: {}", resized.len(), list(resized));
        out.push(Finding { place: "symbols".into(), what, cause: Some(Cause::Code) });
    }
    out
}

/// The symbols whose bytes differ, where a section has the same size in both.
fn symbols_at(file: &object::File<'_>, section: &str, a: &[u8], b: &[u8]) -> Option<String> {
    let section = file.section_by_name(section)?;
    let base = section.address();
    let index = section.index();
    let mut ranges: Vec<(u64, u64, &str)> = file
        .symbols()
        .chain(file.dynamic_symbols())
        .filter(|s| s.section_index() == Some(index) && s.size() > 0)
        .filter_map(|s| Some((s.address().checked_sub(base)?, s.size(), s.name().ok()?)))
        .collect();
    ranges.sort_unstable();
    ranges.dedup();
    let mut names = BTreeSet::new();
    for (start, size, name) in ranges {
        let range = usize::try_from(start).ok()?..usize::try_from(start.saturating_add(size)).ok()?;
        if let (Some(x), Some(y)) = (a.get(range.clone()), b.get(range))
            && x != y
        {
            names.insert(name);
        }
    }
    if names.is_empty() {
        return None;
    }
    let shown: Vec<&str> = names.iter().take(SHOWN).copied().collect();
    let more = names.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    Some(format!("; in {}{more}", shown.join(", ")))
}

/// The members of two static libraries that differ.
pub fn archive(a: &[u8], b: &[u8]) -> Option<Vec<Finding>> {
    let table = |bytes: &[u8]| -> Option<Vec<(String, String, Vec<u8>)>> {
        let mut archive = ar::Archive::new(bytes);
        let mut out = Vec::new();
        while let Some(entry) = archive.next_entry() {
            let mut entry = entry.ok()?;
            let header = entry.header();
            let name = String::from_utf8_lossy(header.identifier()).into_owned();
            let facts = format!("time {}, {}:{}, mode {:o}", header.mtime(), header.uid(), header.gid(), header.mode());
            let mut data = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut data).ok()?;
            out.push((name, facts, data));
        }
        Some(out)
    };
    let (left, right) = (table(a)?, table(b)?);
    let names = |t: &[(String, String, Vec<u8>)]| t.iter().map(|(n, ..)| n.clone()).collect::<Vec<_>>();
    let mut out = Vec::new();
    if names(&left) != names(&right) {
        out.push(Finding {
            place: "members".into(),
            what: format!("{} and {} members, not the same in the same order", left.len(), right.len()),
            cause: Some(Cause::MemberOrder),
        });
    }
    let by_name: BTreeMap<&str, &(String, String, Vec<u8>)> = right.iter().map(|m| (m.0.as_str(), m)).collect();
    for (name, facts, data) in &left {
        let Some((_, other_facts, other)) = by_name.get(name.as_str()) else { continue };
        if facts != other_facts {
            let what = format!("{facts} and {other_facts}");
            out.push(Finding { place: name.clone(), what, cause: Some(Cause::ArchiveTool) });
        }
        if data != other {
            for finding in sections(data, other).unwrap_or_else(|| vec![bytes("bytes", data, other)]) {
                out.push(Finding { place: format!("{name} {}", finding.place), ..finding });
            }
        }
    }
    Some(out)
}

/// How two runs of bytes differ: sizes or count, the first place, the texts that stand there.
pub fn bytes(place: &str, a: &[u8], b: &[u8]) -> Finding {
    let first = a.iter().zip(b).position(|(x, y)| x != y).unwrap_or(a.len().min(b.len()));
    let mut what = if a.len() == b.len() {
        let count = a.iter().zip(b).filter(|(x, y)| x != y).count();
        format!("{count} of {} bytes differ, the first at {first:#x}", a.len())
    } else {
        format!("{} and {} bytes, different from {first:#x} on", a.len(), b.len())
    };
    let (x, y) = (text_at(a, first), text_at(b, first));
    let mut found = None;
    if let (Some(x), Some(y)) = (x, y) {
        what.push_str(&format!(": '{x}' and '{y}'"));
        found = cause::of_texts(&x, &y);
    }
    Finding { place: place.to_owned(), what, cause: found }
}

/// The printable text around `at`, if there is one worth showing.
fn text_at(bytes: &[u8], at: usize) -> Option<String> {
    let printable = |b: &u8| (0x20..0x7f).contains(b);
    if !bytes.get(at).is_some_and(printable) {
        return None;
    }
    let before = bytes[..at].iter().rev().take(80).take_while(|b| printable(b)).count();
    let after = bytes[at..].iter().take(80).take_while(|b| printable(b)).count();
    (before + after >= 4).then(|| String::from_utf8_lossy(&bytes[at - before..at + after]).into_owned())
}
