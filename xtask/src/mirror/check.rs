//! `mirror check`: is every page made of what the projects' JSON says, does everything that the pages name exist and hash
//! right, is every wheel what its page says, and is there nothing else?

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::Serialize;
use serde_json::Value;

use super::index::{Index, entry, is_time};
use super::page::{self, File, Meta, ProjectPage, RootPage};
use super::wheel::{Wheel, sha256};
use crate::error::{Error, Result};
use crate::platform;
use crate::store::digest_file;

/// Largest page, METADATA or file beside a wheel that is read, in bytes.
const MOST: u64 = 64 << 20;

/// Something that is not right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Path in the index.
    pub path: String,
    /// What is wrong.
    pub what: String,
    /// Whether a client gets something wrong; what is false only wastes space or looks old.
    pub serious: bool,
}

/// Looks at everything; `deep` examines every wheel's RECORD and METADATA too. Returns the number of
/// files looked at, and what is wrong.
///
/// # Errors
/// The index cannot be read.
pub fn check(index: &Index, deep: bool) -> Result<(usize, Vec<Finding>)> {
    let projects = index.projects()?;
    let simple = index.root().join("simple");
    // Pages first, and all at once: the index may change while its wheels are read.
    let read: Vec<(ProjectPage, Vec<Finding>)> = projects
        .par_iter()
        .map(|name| {
            let page = index.project(name)?;
            let found = check_page(&simple.join(name), &page);
            Ok((page, found))
        })
        .collect::<Result<_>>()?;
    let (pages, found): (Vec<ProjectPage>, Vec<Vec<Finding>>) = read.into_iter().unzip();
    let root = RootPage::new(projects);
    let json = serde_json::to_vec(&root).map_err(|e| Error::world("json", e.to_string()))?;
    let mut findings = Vec::new();
    for (path, wanted) in [
        ("simple/index.json", &json[..]),
        ("simple/index.html", root.html().as_bytes()),
        ("index.html", page::start(&pages).as_bytes()),
    ] {
        findings.extend(stale(index.root(), path, wanted).then(|| not_of_the_json(path.into())));
    }
    findings.extend(index.left_over().into_iter().map(|path| Finding {
        path,
        what: "no page names it: an interrupted `mirror add` or upload left it; the next change of the index finishes what \
               was decided and removes the rest"
            .into(),
        serious: false,
    }));
    findings.extend(found.into_iter().flatten());
    // Many projects with a few files each, or one with many: both keep all cores busy.
    let found: Vec<Vec<Finding>> = pages
        .par_iter()
        .map(|page| {
            let (name, folder) = (&page.name, index.files(&page.name));
            let mut page = Cow::Borrowed(page);
            loop {
                let found: Vec<Vec<Finding>> =
                    page.files.par_iter().map(|f| check_file(&folder, name, f, deep)).collect();
                let mut found: Vec<Finding> = found.into_iter().flatten().collect();
                found.extend(strangers(&folder, &format!("files/{name}"), &names_of(&page.files)));
                if found.is_empty() {
                    return Ok(found);
                }
                // What came or went while its files were read is no finding.
                let now = index.project(name)?;
                if now == *page {
                    return Ok(found);
                }
                page = Cow::Owned(now);
            }
        })
        .collect::<Result<_>>()?;
    findings.extend(found.into_iter().flatten());
    findings.extend(of_no_project(index));
    Ok((pages.iter().map(|page| page.files.len()).sum(), findings))
}

/// Whether the page `name` is another one than is made of the JSON.
fn stale(folder: &Path, name: &str, wanted: &[u8]) -> bool {
    !platform::read_regular(&folder.join(name), MOST).is_ok_and(|found| found == wanted)
}

fn not_of_the_json(path: String) -> Finding {
    Finding { path, what: "it is older than the JSON that it is made of, or others wrote it".into(), serious: true }
}

/// A project's own pages: made of each other and of its files, and alone in their folder.
fn check_page(folder: &Path, page: &ProjectPage) -> Vec<Finding> {
    let shown = format!("simple/{}", page.name);
    let mut findings = strangers(folder, &shown, &BTreeSet::from(["index.html", "index.json"].map(str::to_owned)));
    if stale(folder, "index.html", page.html().as_bytes()) {
        findings.push(not_of_the_json(format!("{shown}/index.html")));
    }
    // What is not read here is read by installers: a key that we do not know, versions that no file has.
    let mut versions: Vec<String> = page.files.iter().map(|f| f.version.clone()).collect();
    versions.dedup();
    let own = ProjectPage { meta: Meta::default(), versions, ..page.clone() };
    let said = platform::read_regular(&folder.join("index.json"), page::MOST_PAGE).ok();
    let said: Option<Value> = said.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    if let (Some(said), Ok(own)) = (said, serde_json::to_value(own))
        && let Some(key) = more_than(&said, &own)
    {
        let what = format!("its '{}' is not what is made of its files: installers may go by it", key.escape_debug());
        findings.push(Finding { path: format!("{shown}/index.json"), what, serious: true });
    }
    // Of a page with one that is none uv reads nothing, and what is of another form does not sort as text.
    findings.extend(page.files.iter().filter(|f| !is_time(&f.upload_time)).map(|f| Finding {
        path: format!("{shown}/index.json"),
        what: format!("'{}' of {} is no time as `mirror add` writes it", f.upload_time.escape_debug(), f.filename),
        serious: true,
    }));
    findings
}

/// The first key in `said` that `own` does not have, or has with another value; what is left out says nothing.
fn more_than(said: &Value, own: &Value) -> Option<String> {
    match (said, own) {
        (Value::Object(said), Value::Object(own)) => {
            said.iter().filter(|(_, value)| !value.is_null()).find_map(|(key, value)| match own.get(key) {
                Some(own) => more_than(value, own).map(|inner| if inner.is_empty() { key.clone() } else { inner }),
                None => Some(key.clone()),
            })
        }
        (Value::Array(said), Value::Array(own)) if said.len() == own.len() => {
            said.iter().zip(own).find_map(|(said, own)| more_than(said, own))
        }
        _ => (said != own).then(String::new),
    }
}

/// What lies in `simple` and in `files` and belongs to no project. Web servers send it all the same.
fn of_no_project(index: &Index) -> Vec<Finding> {
    let is_project = |name: &str| index.root().join("simple").join(name).join("index.json").is_file();
    let mut findings = Vec::new();
    for top in ["simple", "files"] {
        for (name, path) in entries(&index.root().join(top)) {
            let is_page = top == "simple" && matches!(name.as_str(), "index.html" | "index.json");
            // An add that was interrupted before anything was decided leaves folders with nothing in them.
            if is_page || is_project(&name) || is_empty_folder(&path) {
                continue;
            }
            let serious = top == "simple" && path.is_dir();
            let what = if serious {
                "it is no project, for want of an index.json, and web servers send its pages: remove it, and see who can \
                 write to the index"
            } else {
                "no page names it, and it belongs to no project; it may be removed"
            };
            findings.push(Finding { path: format!("{top}/{name}"), what: what.into(), serious });
        }
    }
    findings
}

fn is_empty_folder(path: &Path) -> bool {
    !path.is_symlink() && std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}

/// What a folder holds, by name.
fn entries(folder: &Path) -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut entries: Vec<_> = entries.map(|e| (e.file_name().to_string_lossy().into_owned(), e.path())).collect();
    entries.sort();
    entries
}

/// An error for what is no file: a pipe is never read to its end, and a link leads out of the index.
fn regular(path: &Path) -> Result<()> {
    platform::open_regular(path, false)
        .map(drop)
        .map_err(|e| Error::misuse("index", format!("{}: {e}", path.display())))
}

fn check_file(folder: &Path, project: &str, file: &File, deep: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut wrong = |name: &str, what: String| {
        findings.push(Finding { path: format!("files/{project}/{name}"), what, serious: true });
    };
    let stated = |h: &page::Hashes| h.get("sha256").cloned().unwrap_or_default();
    let path = folder.join(&file.filename);
    match regular(&path).and_then(|()| digest_file(&path)) {
        Err(e) => wrong(&file.filename, e.what().to_owned()),
        Ok((digest, size)) => {
            if digest != stated(&file.hashes) {
                wrong(&file.filename, format!("it has the SHA-256 {digest}; the page says {}", stated(&file.hashes)));
            } else if size != file.size {
                wrong(&file.filename, format!("it has {size} bytes; the page says {}", file.size));
            } else if deep {
                match Wheel::examine(&path) {
                    Err(e) => wrong(&file.filename, e.what().to_owned()),
                    Ok(w) if w.about.libuv != file.about.libuv => {
                        wrong(&file.filename, "whether its store has libuv is not what the page says".into());
                    }
                    Ok(w) => {
                        let own = entry(project, &w, &file.beside, &file.upload_time);
                        if let Some(field) = differs(&own, file) {
                            wrong(&file.filename, format!("its {field} is not what the page says"));
                        }
                    }
                }
            }
        }
    }
    let metadata = format!("{}.metadata", file.filename);
    let beside = file.beside.iter().map(|(name, digest)| (name.clone(), digest.clone()));
    for (name, digest) in std::iter::once((metadata, stated(&file.core_metadata))).chain(beside) {
        match platform::read_regular(&folder.join(&name), MOST) {
            Err(e) => wrong(&name, e.to_string()),
            Ok(bytes) if sha256(&bytes) != digest => {
                wrong(&name, format!("it has not the SHA-256 {digest} that the page says"))
            }
            Ok(_) => {}
        }
    }
    findings
}

/// What a page says of a file as the file itself does not, of that which installers go by.
fn differs(own: &File, said: &File) -> Option<&'static str> {
    let fields = [
        ("url", own.url == said.url),
        ("hashes", own.hashes == said.hashes),
        ("requires-python", own.requires_python == said.requires_python),
        ("core-metadata", own.core_metadata == said.core_metadata && own.core_metadata == said.dist_info_metadata),
        ("version", own.version == said.version),
    ];
    fields.into_iter().find(|(_, same)| !same).map(|(field, _)| field)
}

/// Names of all that belongs to files of a project.
fn names_of(files: &[File]) -> BTreeSet<String> {
    let mut known = BTreeSet::new();
    for f in files {
        known.insert(f.filename.clone());
        known.insert(format!("{}.metadata", f.filename));
        known.extend(f.beside.keys().cloned());
    }
    known
}

/// Files that no page names: what a killed `add` left.
fn strangers(folder: &Path, shown: &str, known: &BTreeSet<String>) -> Vec<Finding> {
    entries(folder)
        .into_iter()
        .filter(|(name, _)| !known.contains(name))
        .map(|(name, _)| Finding {
            path: format!("{shown}/{name}"),
            what: "no page names it: an interrupted `mirror add` left it; it may be removed".into(),
            serious: false,
        })
        .collect()
}
