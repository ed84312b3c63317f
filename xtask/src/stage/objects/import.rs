//! Takes an archive of objects in: unpacked as what may be hostile, every file held against the digest that it is called
//! by, and refused where another compiler made it. What came in stands in the store as a result of its own and never
//! among what this machine compiled: taken away, nothing of it is left.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::about::{self, About, compiler_sha256};
use crate::artifact::origin::FOLDER;
use crate::error::{Error, Result};
use crate::source::unpack::{self, Bounds};
use crate::stage::build::Build;
use crate::store::{Key, KeyBuilder, digest_file, digest_now};
use crate::toolchain::objects::{Entry, Supply, digest_of_input, real};

/// Its name in the store.
const NAME: &str = "objects";
/// Files of an archive: three for each object, and PyTorch has some thousands.
const MOST_MEMBERS: u64 = 1 << 18;
/// Bytes of a list of files, and of what an entry says.
const MOST_TEXT: u64 = 4 << 20;

/// What is kept beside objects that came in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Imported {
    /// File name of the archive.
    pub archive: String,
    /// Its SHA-256.
    pub sha256: String,
    /// Who answers for it: the key that signed it, or that nobody did.
    pub writer: String,
    /// Objects in it.
    pub objects: u64,
    /// Of these, those whose headers of the system are the ones of this machine.
    pub usable: u64,
    /// Headers of the system that this machine does not have, or has with other bytes.
    pub other_headers: Vec<String>,
    /// Bytes of the objects.
    pub bytes: u64,
}

/// Objects of one recipe, for one Python, by one compiler.
fn key(build: &Build<'_>) -> Result<Key> {
    Ok(KeyBuilder::new(NAME, 1)
        .text("recipe", &build.recipe.name)
        .text("python", &build.python.minor())
        .text("machine", &build.python.machine)
        .text("compiler", &compiler_sha256(build)?)
        .finish())
}

/// Takes in the archive at `path`, whose bytes have the digest `sha256` and for which `writer` answers. What was there
/// before for this recipe, Python and compiler makes way.
///
/// # Errors
/// Bad input: the archive is hostile, damaged, of another recipe, Python, machine or compiler.
pub fn import(build: &Build<'_>, path: &Path, sha256: &str, writer: &str) -> Result<Imported> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let key = key(build)?;
    let _lock = build.store.lock(&format!("{NAME}-{}", key.short()), build.events)?;
    let pending = build.store.begin(NAME, &key)?;
    let out = pending.out();
    let bounds = Bounds { bytes: build.recipe.limits.disk, members: MOST_MEMBERS };
    unpack::unpack(path, &name, &[unpack::Target::all(&out)], bounds, build.recipe.torch.epoch)?;
    // What was judged is what was unpacked.
    if digest_file(path)?.0 != sha256 {
        return Err(damaged(&name, "it was changed while it was read"));
    }
    let about = About::parse(&read(&out, about::FILE, &name)?, &name)?;
    fits(build, &about, &name)?;
    let entries = judge(&out, &name)?;
    let (usable, other_headers) = usable(build, &out, &about, &entries);
    let record = Imported {
        archive: name.clone(),
        sha256: sha256.to_owned(),
        writer: writer.to_owned(),
        objects: entries.len() as u64,
        usable,
        other_headers,
        bytes: entries.iter().map(|entry| entry.size).sum(),
    };
    if record.usable == 0 {
        let first = record.other_headers.first().map_or("none of its objects", String::as_str);
        return Err(Error::misuse(
            "other-headers",
            format!("no object of {name} fits this machine: {first} is missing here, or has other bytes"),
        )
        .next("its headers of the system are of other packages: build in the container of ci/containers, which has the same"));
    }
    pending.finish(&record)?;
    Ok(record)
}

fn damaged(name: &str, what: &str) -> Error {
    Error::misuse("objects-damaged", format!("{name} is not used: {what}"))
        .next("compare its size and digest with those that were published, and fetch it again")
}

/// A file of the archive that is unpacked at `out`.
fn read(out: &Path, file: &str, name: &str) -> Result<Vec<u8>> {
    let path = out.join(file);
    match std::fs::metadata(&path) {
        Ok(about) if about.len() <= 16 * MOST_TEXT => Ok(fs_err::read(&path)?),
        Ok(about) => Err(damaged(name, &format!("its {file} has {} bytes", about.len()))),
        Err(_) => Err(damaged(name, &format!("it has no {file}: it is no archive of compiled objects"))),
    }
}

/// An error if the archive is of another build than this one.
fn fits(build: &Build<'_>, about: &About, name: &str) -> Result<()> {
    let differs = |what: &'static str, theirs: &str, ours: &str| {
        Error::misuse(what, format!("{name} is for {theirs}; this build is for {ours}"))
    };
    if about.recipe != build.recipe.name {
        return Err(differs(
            "other-recipe",
            &format!("the recipe {}", about.recipe.escape_debug()),
            &build.recipe.name,
        )
        .next(format!("name its recipe: --recipe {}", about.recipe.escape_debug())));
    }
    let (theirs, ours) = (
        format!("Python {} on {}", about.python.escape_debug(), about.machine.escape_debug()),
        format!("Python {} on {}", build.python.minor(), build.python.machine),
    );
    if theirs != ours {
        return Err(differs("other-python", &theirs, &ours)
            .next(format!("name a Python that it is for: --python {}", about.python.escape_debug())));
    }
    let compiler = compiler_sha256(build)?;
    if about.compiler_sha256 == compiler {
        return Ok(());
    }
    Err(Error::misuse(
        "other-compiler",
        format!(
            "the objects of {name} were made by another compiler: '{}' (identity sha256:{}); this machine's is '{}' (sha256:{compiler})",
            about.compiler.escape_debug(),
            about.compiler_sha256.escape_debug(),
            build.compiler.banner
        ),
    )
    .next("name that compiler with CC and CXX, or build in the container of ci/containers, whose packages are pinned"))
}

/// All entries of the archive that is unpacked at `out`: every file has the digest that it is called by, and there is
/// nothing else.
fn judge(out: &Path, name: &str) -> Result<Vec<Entry>> {
    let mut files = Vec::new();
    for entry in walkdir::WalkDir::new(out) {
        let entry = entry.map_err(|e| Error::world("io", e.to_string()))?;
        if entry.file_type().is_file() {
            let below = entry.path().strip_prefix(out).unwrap_or(entry.path());
            files.push((below.iter().map(|p| p.to_string_lossy().into_owned()).collect::<Vec<_>>(), entry.into_path()));
        }
    }
    let entries: Result<Vec<Option<Entry>>> =
        files.par_iter().map(|(segments, path)| one(segments, path, name)).collect();
    let entries: Vec<Entry> = entries?.into_iter().flatten().collect();
    let there: BTreeSet<PathBuf> = files.into_iter().map(|(_, path)| path).collect();
    for entry in &entries {
        for (kind, digest) in [("objects", &entry.object), ("reads", &entry.reads)] {
            if !there.contains(&out.join(kind).join(digest)) {
                let output = &entry.output;
                return Err(damaged(name, &format!("the file {kind}/{digest} of its object {output} is missing")));
            }
        }
    }
    Ok(entries)
}

/// Judges one file of the archive; the entry, if it is one.
fn one(segments: &[String], path: &Path, name: &str) -> Result<Option<Entry>> {
    let shown = segments.join("/");
    match segments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [about::FILE] | [FOLDER, ..] => Ok(None),
        [kind @ ("objects" | "reads"), digest] => {
            // Lists are read as a whole, objects never.
            if kind == "reads" && fs_err::metadata(path)?.len() > MOST_TEXT {
                return Err(damaged(name, &format!("its file {shown} has more than {MOST_TEXT} bytes")));
            }
            let is = digest_now(path)?;
            if is == digest {
                return Ok(None);
            }
            Err(damaged(name, &format!("its file {shown} has the SHA-256 {is}")))
        }
        ["entries", file] => {
            if fs_err::metadata(path)?.len() > MOST_TEXT {
                return Err(damaged(name, &format!("its file {shown} has more than {MOST_TEXT} bytes")));
            }
            let entry: Entry = serde_json::from_slice(&fs_err::read(path)?)
                .map_err(|e| damaged(name, &format!("its file {shown} says nothing of an object: {e}")))?;
            if let Some(fault) = entry.fault() {
                return Err(damaged(name, &format!("in its file {shown}, {fault}")));
            }
            if Entry::file(&entry.output) != file {
                return Err(damaged(name, &format!("its file {shown} is about {}", entry.output)));
            }
            Ok(Some(entry))
        }
        _ => Err(damaged(name, &format!("the file '{}' has no business in it", shown.escape_debug()))),
    }
}

/// How many objects can be used with the headers of this system, and the headers that are other ones here.
fn usable(build: &Build<'_>, out: &Path, about: &About, entries: &[Entry]) -> (u64, Vec<String>) {
    let python = build.python.include.display().to_string();
    let other: BTreeSet<String> = about
        .headers
        .par_iter()
        .filter(|(header, theirs)| {
            digest_of_input(Path::new(&real(header, &python))).is_none_or(|ours| ours != **theirs)
        })
        .map(|(header, _)| header.clone())
        .collect();
    let fits = |entry: &&Entry| {
        let names = std::fs::read_to_string(out.join("reads").join(&entry.reads)).unwrap_or_default();
        other.is_empty() || !names.lines().any(|name| other.contains(name))
    };
    (entries.par_iter().filter(fits).count() as u64, other.into_iter().collect())
}

/// The objects that came in for `build`, if some did and the build may use them.
///
/// # Errors
/// The compiler cannot be identified.
pub fn supply(build: &Build<'_>) -> Result<Option<(Supply, Imported)>> {
    if build.options.no_compiler_cache {
        return Ok(None);
    }
    let key = key(build)?;
    if build.store.has(NAME, &key).is_none() {
        return Ok(None);
    }
    let found = build.store.finished(NAME, &key);
    build.tell_found();
    let found = found?.zip(build.store.record::<Imported>(NAME, &key)?);
    Ok(found.map(|(folder, record)| (Supply { folder, python: build.python.include.display().to_string() }, record)))
}

/// Removes what came in for `build`.
///
/// # Errors
/// It cannot be removed.
pub fn forget(build: &Build<'_>) -> Result<()> {
    build.store.forget(NAME, &key(build)?)
}
