//! In what do two artifacts differ, and why? Down to the member of an archive, the section and the
//! symbol of a binary, with the likely cause.

mod binary;
mod bytes;
mod cause;
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Serialize;

use crate::error::{Context, Result};
use crate::store::digest_file;
use crate::wheel::ReadAt;
use bytes::Bytes;
use tree::{Entry, MOST, Tree};

pub use cause::Cause;

/// What two artifacts, folders or files differ in.
#[derive(Debug, Clone, Serialize)]
pub struct Difference {
    /// Whether both are the same, byte for byte.
    pub identical: bool,
    /// SHA-256 of both, where they are files.
    pub sha256: [Option<String>; 2],
    /// What is different about the archives themselves.
    pub container: Vec<Finding>,
    /// Members that only the first one has.
    pub only_in_a: Vec<String>,
    /// Members that only the second one has.
    pub only_in_b: Vec<String>,
    /// Members that both have, and that differ.
    pub members: Vec<Member>,
    /// Members that are the same in both.
    pub same: usize,
}

/// One thing that differs, and why it may.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Where: a section, a header's field.
    pub place: String,
    /// How the two differ there.
    pub what: String,
    /// The likely cause, where one can be told.
    pub cause: Option<Cause>,
}

/// A member that differs.
#[derive(Debug, Clone, Serialize)]
pub struct Member {
    /// Path inside of both.
    pub name: String,
    /// Size in bytes, in the first and in the second.
    pub size: [u64; 2],
    /// All that differs in it.
    pub findings: Vec<Finding>,
}

/// Compares `a` and `b`: two wheels, two archives, two folders, or two files.
///
/// # Errors
/// Bad input: not there, not readable.
pub fn diff(a: &Path, b: &Path) -> Result<Difference> {
    let open = |path: &Path| Tree::open(path).doing(|| format!("reading {}", path.display()));
    let digest = |path: &Path| -> Result<Option<String>> {
        if path.is_file() { Ok(Some(digest_file(path)?.0)) } else { Ok(None) }
    };
    let (one, two) = rayon::join(|| digest(a), || digest(b));
    let sha256 = [one?, two?];
    let mut out = Difference {
        identical: sha256[0].is_some() && sha256[0] == sha256[1],
        sha256,
        container: Vec::new(),
        only_in_a: Vec::new(),
        only_in_b: Vec::new(),
        members: Vec::new(),
        same: 0,
    };
    if out.identical {
        return Ok(out);
    }
    let (one, two) = rayon::join(|| open(a), || open(b));
    let (one, two) = (one?, two?);
    out.container = container(&one, &two);
    let (in_one, in_two) = (by_name(&one), by_name(&two));
    let alone = |of: &BTreeMap<&str, &Entry>, other: &BTreeMap<&str, &Entry>| -> Vec<String> {
        of.keys().filter(|name| !other.contains_key(*name)).map(|name| (*name).to_owned()).collect()
    };
    out.only_in_a = alone(&in_one, &in_two);
    out.only_in_b = alone(&in_two, &in_one);
    let both: Vec<(&Entry, &Entry)> =
        in_one.values().filter_map(|e| Some((*e, *in_two.get(e.name.as_str())?))).collect();
    let differing: Vec<(&Entry, &Entry)> = both
        .iter()
        .copied()
        .filter(|(x, y)| x.sha256 != y.sha256 || x.executable != y.executable || x.link != y.link)
        .collect();
    out.same = both.len() - differing.len();
    let wanted: BTreeSet<&str> = differing.iter().map(|(e, _)| e.name.as_str()).collect();
    let (left, right) = rayon::join(|| one.contents(&wanted), || two.contents(&wanted));
    let (left, right) = (left?, right?);
    // One pair at a time: of two builds of torch's largest library the tables alone are in memory.
    out.members = differing
        .iter()
        .map(|(x, y)| {
            let mut findings = match (left.of(&x.name)?, right.of(&y.name)?) {
                (Some(a), Some(b)) => contents(&x.name, &a, &b)?,
                _ => vec![Finding {
                    place: "contents".into(),
                    what: format!("differ; more than {MOST} bytes of all members are not looked into"),
                    cause: None,
                }],
            };
            if x.executable != y.executable {
                findings.push(Finding {
                    place: "mode".into(),
                    what: format!("executable: {} and {}", x.executable, y.executable),
                    cause: Some(Cause::Mode),
                });
            }
            if x.link != y.link {
                findings.push(Finding {
                    place: "link".into(),
                    what: format!("points to {:?} and {:?}", x.link, y.link),
                    cause: None,
                });
            }
            Ok(Member { name: x.name.clone(), size: [x.size, y.size], findings })
        })
        .collect::<Result<_>>()?;
    // RECORD lists digests: it differs whenever anything else does.
    let alone = out.members.len() == 1 && out.only_in_a.is_empty() && out.only_in_b.is_empty();
    for member in out.members.iter_mut().filter(|m| !alone && m.name.ends_with(".dist-info/RECORD")) {
        member.findings = vec![Finding {
            place: "text".into(),
            what: "lists the digests of the members that differ".into(),
            cause: Some(Cause::Follows),
        }];
    }
    let folders = out.sha256[0].is_none();
    out.identical = folders
        && out.container.is_empty()
        && out.only_in_a.is_empty()
        && out.only_in_b.is_empty()
        && out.members.is_empty();
    Ok(out)
}

/// What is different about two archives beside what their members hold.
fn container(one: &Tree, two: &Tree) -> Vec<Finding> {
    let mut out = Vec::new();
    if one.kind != two.kind {
        out.push(Finding { place: "format".into(), what: format!("{} and {}", one.kind, two.kind), cause: None });
        return out;
    }
    let (x, y): (Vec<&str>, Vec<&str>) =
        (one.entries.iter().map(|e| e.name.as_str()).collect(), two.entries.iter().map(|e| e.name.as_str()).collect());
    let sorted = |mut names: Vec<_>| {
        names.sort_unstable();
        names
    };
    if x != y && sorted(x.clone()) == sorted(y.clone()) {
        let at = x.iter().zip(&y).position(|(p, q)| p != q).unwrap_or(0);
        out.push(Finding {
            place: "directory".into(),
            what: format!("the same members in another order, from member {} on: '{}' and '{}'", at + 1, x[at], y[at]),
            cause: Some(Cause::MemberOrder),
        });
    }
    let others = by_name(two);
    let pairs: Vec<(&Entry, &Entry)> =
        one.entries.iter().filter_map(|e| Some((e, *others.get(e.name.as_str())?))).collect();
    let mut count = |place: &str, cause: Cause, differs: &dyn Fn(&Entry, &Entry) -> Option<String>| {
        let mut found = pairs.iter().filter_map(|(p, q)| Some((&p.name, differs(p, q)?)));
        if let Some((name, how)) = found.next() {
            out.push(Finding {
                place: place.into(),
                what: format!("{} of {} members, such as '{name}': {how}", found.count() + 1, pairs.len()),
                cause: Some(cause),
            });
        }
    };
    let two_values = |p: String, q: String| (p != q).then(|| format!("{p} and {q}"));
    count("times", Cause::TimeStamp, &|p, q| two_values(p.time.clone(), q.time.clone()));
    count("owners", Cause::Owner, &|p, q| two_values(p.owner.clone(), q.owner.clone()));
    count("headers", Cause::ArchiveTool, &|p, q| two_values(p.header.clone(), q.header.clone()));
    count("compression", Cause::Compression, &|p, q| {
        (p.sha256 == q.sha256 && p.packed != q.packed).then(|| format!("{} and {} bytes packed", p.packed, q.packed))
    });
    if let Some(what) = two_values(one.header.clone(), two.header.clone()) {
        out.push(Finding { place: "archive header".into(), what, cause: Some(Cause::ArchiveTool) });
    }
    let contents_same = pairs.len() == one.entries.len()
        && pairs.len() == two.entries.len()
        && pairs.iter().all(|(p, q)| p.sha256 == q.sha256 && p.executable == q.executable);
    if out.is_empty() && contents_same && one.kind != "folder" && one.kind != "file" {
        out.push(Finding {
            place: "bytes".into(),
            what: "the members and their headers are the same; the packed bytes are not".into(),
            cause: Some(Cause::Compression),
        });
    }
    out
}

fn by_name(tree: &Tree) -> BTreeMap<&str, &Entry> {
    tree.entries.iter().map(|e| (e.name.as_str(), e)).collect()
}

/// Texts that are compared by lines; larger ones are compared as bytes.
const LARGEST_TEXT: u64 = 32 << 20;

/// In what the bytes of one member differ.
fn contents(name: &str, a: &Bytes, b: &Bytes) -> Result<Vec<Finding>> {
    if bytes::compare(a, b)?.is_none() {
        return Ok(Vec::new());
    }
    if let Some(found) = binary::sections(a, b)? {
        return Ok(found);
    }
    if name.ends_with(".a")
        && let Some(found) = binary::archive(a, b)?
    {
        return Ok(found);
    }
    if a.size().max(b.size()) <= LARGEST_TEXT
        && let (Ok(x), Ok(y)) = (String::from_utf8(a.read()?), String::from_utf8(b.read()?))
    {
        return Ok(vec![text(&x, &y)]);
    }
    Ok(vec![binary::bytes("bytes", a, b)?])
}

/// The first line that two texts do not share.
fn text(a: &str, b: &str) -> Finding {
    let differing = a.lines().zip(b.lines()).enumerate().find(|(_, (x, y))| x != y);
    let short = |line: &str| line.chars().take(160).collect::<String>();
    match differing {
        Some((i, (x, y))) => Finding {
            place: format!("line {}", i + 1),
            what: format!("'{}' and '{}'", short(x.trim()), short(y.trim())),
            cause: cause::of_texts(x, y),
        },
        None => Finding {
            place: "text".into(),
            what: format!(
                "{} and {} lines, the shorter one is how the longer one begins",
                a.lines().count(),
                b.lines().count()
            ),
            cause: None,
        },
    }
}
