//! Binaries: which sections differ, which symbols, and what the bytes look like there.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;

use object::read::archive::ArchiveFile;
use object::{Object, ObjectSection, ObjectSymbol};

use super::bytes::{Bytes, Differing, compare};
use super::{Cause, Finding, cause};
use crate::error::Result;
use crate::inspect::Lens;
use crate::wheel::ReadAt;

/// Symbols that are named in one finding.
const SHOWN: usize = 5;
/// Bytes of headers and tables of one file that are in memory: the symbols of a stock `libtorch_cpu.so` have 60 MiB.
const MOST_OF_TABLES: u64 = 96 << 20;
/// Sections of a file, and members of a static library, that are looked into.
const MOST_SECTIONS: usize = 1 << 18;
/// Symbols of a file that are compared, and bytes of their names, each as often as it is used.
const MOST_SYMBOLS: usize = 2 << 20;
const MOST_OF_NAMES: usize = 256 << 20;
/// Findings about one file.
const MOST_FINDINGS: usize = 1000;

type File<'l> = object::File<'l, &'l Lens<'l>>;

/// Where the bytes of each section are, by name; object files have many sections of one name, which are counted.
type Table<'l> = BTreeMap<(&'l [u8], usize), Range<u64>>;

/// `None` where there are too many sections, or where they share bytes so that there is more to compare than the file
/// has.
fn table<'l>(file: &File<'l>, size: u64) -> Option<Table<'l>> {
    let (mut out, mut met, mut sum) = (BTreeMap::new(), HashMap::new(), 0u64);
    for section in file.sections() {
        let name = section.name_bytes().unwrap_or(b"?");
        let n = met.entry(name).or_insert(0);
        *n += 1;
        let (start, length) = section.file_range().unwrap_or_default();
        sum = sum.saturating_add(length);
        if out.len() == MOST_SECTIONS || sum > size.saturating_mul(2) {
            return None;
        }
        out.insert((name, *n), start..start.saturating_add(length));
    }
    Some(out)
}

fn section_name((name, n): &(&[u8], usize)) -> String {
    let name = String::from_utf8_lossy(name);
    if *n == 1 { name.into_owned() } else { format!("{name} ({n})") }
}

/// The sections that differ between two ELF, PE or Mach-O files; `None` where one is none.
///
/// # Errors
/// The world: one of them cannot be read.
pub fn sections(a: &Bytes, b: &Bytes) -> Result<Option<Vec<Finding>>> {
    let (left, right) = (Lens::new(a, MOST_OF_TABLES), Lens::new(b, MOST_OF_TABLES));
    let (one, two) = (File::parse(&left), File::parse(&right));
    let (Ok(one), Ok(two)) = (one, two) else {
        let full = left.is_full() || right.is_full();
        return Ok(if full { Some(vec![bytes("bytes", a, b)?, unread()]) } else { None });
    };
    let (Some(x), Some(y)) = (table(&one, a.size()), table(&two, b.size())) else { return Ok(None) };
    let mut out = Vec::new();
    let mut more = 0;
    let symbols_of_one = placed(&one);
    for key in x.keys().chain(y.keys()).collect::<BTreeSet<_>>() {
        let finding = match (x.get(key), y.get(key)) {
            (Some(p), Some(q)) => {
                let name = section_name(key);
                let (p, q) = (a.part(p.clone()), b.part(q.clone()));
                let Some(differing) = compare(&p, &q)? else { continue };
                let mut finding = told(&name, &p, &q, &differing)?;
                if name.contains("build-id") {
                    finding.cause = Some(Cause::BuildId);
                } else if name == ".comment" {
                    finding.cause = Some(Cause::Toolchain);
                } else if finding.cause.is_none() && is_code(&name) {
                    finding.cause = Some(Cause::Code);
                }
                if p.size() == q.size()
                    && key.1 == 1
                    && let Some(section) = one.section_by_name_bytes(key.0)
                {
                    finding.what.push_str(&symbols_at(&symbols_of_one, &section, &differing));
                }
                finding
            }
            (Some(_), None) => only(&section_name(key), "first"),
            _ => only(&section_name(key), "second"),
        };
        if out.len() < MOST_FINDINGS {
            out.push(finding);
        } else {
            more += 1;
        }
    }
    if more > 0 {
        out.push(Finding { place: "sections".into(), what: format!("{more} more of them differ"), cause: None });
    }
    drop(symbols_of_one);
    out.extend(symbols(&one, &two));
    let has_more = |file: &File<'_>| file.symbols().chain(file.dynamic_symbols()).nth(MOST_SYMBOLS).is_some();
    if left.is_full() || right.is_full() || has_more(&one) || has_more(&two) {
        out.push(unread());
    }
    if out.is_empty() {
        out.push(bytes("headers", a, b)?);
    }
    Ok(Some(out))
}

/// What is said where tables are too large to be read.
fn unread() -> Finding {
    Finding {
        place: "tables".into(),
        what: format!(
            "not all were looked into: of more than {MOST_OF_TABLES} bytes, or {MOST_SYMBOLS} symbols, no more"
        ),
        cause: None,
    }
}

fn only(name: &str, which: &str) -> Finding {
    Finding { place: name.to_owned(), what: format!("a section of the {which} file alone"), cause: None }
}

fn is_code(section: &str) -> bool {
    [".text", ".init", ".fini", ".plt", "__text"].iter().any(|s| section.starts_with(s))
}

/// The symbols with a name, as many as may be; their tables of names are read as a whole before.
fn named<'l, 'f>(file: &'f File<'l>) -> impl Iterator<Item = (object::Symbol<'l, 'f, &'l Lens<'l>>, &'l [u8])> {
    for section in [".strtab", ".dynstr"] {
        let _ = file.section_by_name(section).map(|s| s.data().map(drop));
    }
    let mut sum = 0;
    file.symbols()
        .chain(file.dynamic_symbols())
        .filter_map(|s| s.name_bytes().ok().map(|name| (s, name)))
        .filter(|(_, name)| !name.is_empty())
        .take(MOST_SYMBOLS)
        .take_while(move |(_, name)| {
            sum += name.len();
            sum <= MOST_OF_NAMES
        })
}

/// Symbols that one file has and the other has not, and symbols of another size.
fn symbols(a: &File<'_>, b: &File<'_>) -> Vec<Finding> {
    let (left, right) = (sizes(a), sizes(b));
    let mut out = Vec::new();
    for (x, y, which) in [(&left, &right, "first"), (&right, &left, "second")] {
        let alone: Vec<&[u8]> = x.iter().map(|s| s.0).filter(|name| size_of(y, name).is_none()).collect();
        if !alone.is_empty() {
            let what = format!("{} of the {which} file alone: {}", alone.len(), list(&alone));
            out.push(Finding { place: "symbols".into(), what, cause: Some(Cause::Code) });
        }
    }
    let differs = |(name, size): &&(&[u8], u64)| size_of(&right, name).is_some_and(|other| other != *size);
    let resized: Vec<&[u8]> = left.iter().filter(differs).map(|s| s.0).collect();
    if !resized.is_empty() {
        let what = format!("{} of another size: {}", resized.len(), list(&resized));
        out.push(Finding { place: "symbols".into(), what, cause: Some(Cause::Code) });
    }
    out
}

/// The symbols that a file defines, with their sizes, by name.
fn sizes<'l>(file: &File<'l>) -> Vec<(&'l [u8], u64)> {
    let mut out: Vec<_> = named(file).filter(|(s, _)| s.is_definition()).map(|(s, name)| (name, s.size())).collect();
    out.sort_unstable();
    out.dedup_by_key(|s| s.0);
    out
}

fn size_of(of: &[(&[u8], u64)], name: &[u8]) -> Option<u64> {
    of.binary_search_by_key(&name, |s| s.0).ok().map(|i| of[i].1)
}

/// Names for people: the first few.
fn list(names: &[&[u8]]) -> String {
    let shown: Vec<_> = names.iter().take(SHOWN).map(|n| String::from_utf8_lossy(n)).collect();
    let more = names.len().saturating_sub(SHOWN);
    if more == 0 { shown.join(", ") } else { format!("{} and {more} more", shown.join(", ")) }
}

/// A symbol's section, place and name.
type Placed<'l> = (usize, Range<u64>, &'l [u8]);

/// The symbols that have a size, by section.
fn placed<'l>(file: &File<'l>) -> Vec<Placed<'l>> {
    let mut out: Vec<Placed<'l>> = named(file)
        .filter(|(s, _)| s.size() > 0)
        .filter_map(|(s, name)| Some((s.section_index()?.0, s.address()..s.address().saturating_add(s.size()), name)))
        .collect();
    out.sort_unstable_by_key(|s| s.0);
    out
}

/// The symbols whose bytes differ, where a section has the same size in both.
fn symbols_at<'l>(symbols: &[Placed<'l>], section: &impl ObjectSection<'l>, differing: &Differing) -> String {
    let (index, base) = (section.index().0, section.address());
    let from = symbols.partition_point(|s| s.0 < index);
    let names: BTreeSet<&[u8]> = symbols[from..]
        .iter()
        .take_while(|s| s.0 == index)
        .filter_map(|(_, range, name)| Some((range.start.checked_sub(base)?..range.end.checked_sub(base)?, *name)))
        .filter(|(range, _)| differing.touches(range))
        .map(|(_, name)| name)
        .collect();
    if names.is_empty() {
        return String::new();
    }
    format!("; in {}", list(&names.into_iter().collect::<Vec<_>>()))
}

/// A member of a static library: its name, its header for people, its bytes.
type Member<'l> = (&'l [u8], String, Bytes);

/// The members of the static library that `lens` shows; `None` where it is none, or has too many.
fn members<'l>(lens: &'l Lens<'l>, of: &Bytes) -> Option<Vec<Member<'l>>> {
    let archive = ArchiveFile::parse(lens).ok()?;
    if archive.is_thin() {
        return None; // its members are files beside it
    }
    let mut out = Vec::new();
    for member in archive.members() {
        let member = member.ok().filter(|_| out.len() < MOST_SECTIONS)?;
        let number = |n: Option<u64>| n.map_or("none".into(), |n| n.to_string());
        let facts = format!(
            "time {}, {}:{}, mode {}",
            number(member.date()),
            number(member.uid()),
            number(member.gid()),
            member.mode().map_or("none".into(), |m| format!("{m:o}"))
        );
        let (start, size) = member.file_range();
        out.push((member.name(), facts, of.part(start..start.saturating_add(size))));
    }
    Some(out)
}

/// The members of two static libraries that differ.
///
/// # Errors
/// The world: one of them cannot be read.
pub fn archive(a: &Bytes, b: &Bytes) -> Result<Option<Vec<Finding>>> {
    let (one, two) = (Lens::new(a, MOST_OF_TABLES), Lens::new(b, MOST_OF_TABLES));
    let (Some(left), Some(right)) = (members(&one, a), members(&two, b)) else { return Ok(None) };
    let mut out = Vec::new();
    if !left.iter().map(|m| m.0).eq(right.iter().map(|m| m.0)) {
        out.push(Finding {
            place: "members".into(),
            what: format!("{} and {} members, not the same in the same order", left.len(), right.len()),
            cause: Some(Cause::MemberOrder),
        });
    }
    let by_name: BTreeMap<&[u8], &Member<'_>> = right.iter().map(|m| (m.0, m)).collect();
    for (name, facts, data) in &left {
        let Some((_, other_facts, other)) = by_name.get(name) else { continue };
        let name = String::from_utf8_lossy(name);
        if out.len() >= MOST_FINDINGS {
            let what = format!("from '{name}' on they were not compared: {MOST_FINDINGS} findings are enough");
            out.push(Finding { place: "members".into(), what, cause: None });
            break;
        }
        if facts != other_facts {
            let what = format!("{facts} and {other_facts}");
            out.push(Finding { place: name.clone().into_owned(), what, cause: Some(Cause::ArchiveTool) });
        }
        if compare(data, other)?.is_some() {
            let found = match sections(data, other)? {
                Some(found) => found,
                None => vec![bytes("bytes", data, other)?],
            };
            out.extend(found.into_iter().map(|f| Finding { place: format!("{name} {}", f.place), ..f }));
        }
    }
    Ok((!out.is_empty()).then_some(out))
}

/// How two runs of bytes differ: sizes or count, the first place, the texts that stand there.
///
/// # Errors
/// The world: one of them cannot be read.
pub fn bytes(place: &str, a: &Bytes, b: &Bytes) -> Result<Finding> {
    told(place, a, b, &compare(a, b)?.unwrap_or_default())
}

fn told(place: &str, a: &Bytes, b: &Bytes, differing: &Differing) -> Result<Finding> {
    let first = differing.first;
    let mut what = if a.size() == b.size() {
        format!("{} of {} bytes differ, the first at {first:#x}", differing.count, a.size())
    } else {
        format!("{} and {} bytes, different from {first:#x} on", a.size(), b.size())
    };
    let mut found = None;
    if let (Some(x), Some(y)) = (text_at(a, first)?, text_at(b, first)?) {
        what.push_str(&format!(": '{x}' and '{y}'"));
        found = cause::of_texts(&x, &y);
    }
    Ok(Finding { place: place.to_owned(), what, cause: found })
}

/// The printable text around `at`, if there is one worth showing.
fn text_at(bytes: &Bytes, at: u64) -> Result<Option<String>> {
    const AROUND: u64 = 80;
    let start = at.saturating_sub(AROUND);
    let bytes = bytes.part(start..at.saturating_add(AROUND)).read()?;
    let at = usize::try_from(at - start).unwrap_or(usize::MAX);
    let printable = |b: &u8| (0x20..0x7f).contains(b);
    if !bytes.get(at).is_some_and(printable) {
        return Ok(None);
    }
    let before = bytes[..at].iter().rev().take_while(|b| printable(b)).count();
    let after = bytes[at..].iter().take_while(|b| printable(b)).count();
    let text = || String::from_utf8_lossy(&bytes[at - before..at + after]).into_owned();
    Ok((before + after >= 4).then(text))
}
