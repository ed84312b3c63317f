//! `mirror check`: does everything that the pages name exist and hash right, is every wheel what its
//! page says, and is there nothing else?

use std::collections::BTreeSet;
use std::path::Path;

use rayon::prelude::*;
use serde::Serialize;

use super::index::{Index, entry};
use super::page::{File, RootPage};
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
    let mut findings = Vec::new();
    let mut count = 0;
    let projects = index.projects()?;
    let root = RootPage::new(projects.iter().cloned());
    let same = |path: &Path, wanted: &str| platform::read_regular(path, MOST).is_ok_and(|b| b == wanted.as_bytes());
    let stale = |path: String| Finding { path, what: "it is older than the JSON it is made of".into(), serious: true };
    if !same(&index.root().join("simple/index.html"), &root.html()) {
        findings.push(stale("simple/index.html".into()));
    }
    findings.extend(index.left_over().into_iter().map(|path| Finding {
        path,
        what: "no page names it: an interrupted `mirror add` or upload left it; the next change of the index finishes what \
               was decided and removes the rest"
            .into(),
        serious: false,
    }));
    // Many projects with a few files each, or one with many: both keep all cores busy.
    let looked: Vec<(usize, Vec<Finding>)> = projects
        .par_iter()
        .map(|name| {
            let page = index.project(name)?;
            let mut findings = Vec::new();
            if !same(&index.root().join("simple").join(name).join("index.html"), &page.html()) {
                findings.push(stale(format!("simple/{name}/index.html")));
            }
            let folder = index.files(name);
            let found: Vec<Vec<Finding>> = page.files.par_iter().map(|f| check_file(&folder, name, f, deep)).collect();
            findings.extend(found.into_iter().flatten());
            findings.extend(strangers(&folder, name, &page.files));
            Ok((page.files.len(), findings))
        })
        .collect::<Result<_>>()?;
    for (files, found) in looked {
        count += files;
        findings.extend(found);
    }
    Ok((count, findings))
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
    let stated = |h: &super::page::Hashes| h.get("sha256").cloned().unwrap_or_default();
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
        ("requires-python", own.requires_python == said.requires_python),
        ("core-metadata", own.core_metadata == said.core_metadata && own.core_metadata == said.dist_info_metadata),
        ("version", own.version == said.version),
    ];
    fields.into_iter().find(|(_, same)| !same).map(|(field, _)| field)
}

/// Files that no page names: what a killed `add` left.
fn strangers(folder: &Path, project: &str, files: &[File]) -> Vec<Finding> {
    let mut known: BTreeSet<String> = BTreeSet::new();
    for f in files {
        known.insert(f.filename.clone());
        known.insert(format!("{}.metadata", f.filename));
        known.extend(f.beside.keys().cloned());
    }
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.map(|e| e.file_name().to_string_lossy().into_owned());
    names
        .filter(|n| !known.contains(n))
        .map(|n| Finding {
            path: format!("files/{project}/{n}"),
            what: "no page names it: an interrupted `mirror add` left it; it may be removed".into(),
            serious: false,
        })
        .collect()
}
