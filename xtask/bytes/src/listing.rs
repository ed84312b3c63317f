//! Judging what is in the store when it is used: a file that has not the digest it had when it came in
//! is noticed, whatever changed it. What was hashed once is remembered for this run alone, by where it
//! is, its size and its times; a file whose times move is hashed again.

use std::collections::{BTreeMap, HashMap};
use std::fs::Metadata;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::digest::{digest_file, sha256};
use crate::names::below;

/// What a file was when it was hashed. No time stands for the bytes; all of them together say that
/// nobody wrote since.
type Stamp = (u64, u64, u64, i128, i128);

static HASHED: Mutex<Option<HashMap<Stamp, String>>> = Mutex::new(None);
static SPENT: Mutex<(Duration, u64)> = Mutex::new((Duration::ZERO, 0));

#[cfg(unix)]
fn stamp(about: &Metadata, _path: &Path) -> Stamp {
    use std::os::unix::fs::MetadataExt;
    let time = |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
    (
        about.dev(),
        about.ino(),
        about.len(),
        time(about.mtime(), about.mtime_nsec()),
        time(about.ctime(), about.ctime_nsec()),
    )
}

#[cfg(not(unix))]
fn stamp(about: &Metadata, path: &Path) -> Stamp {
    use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
    let time =
        about.modified().ok().and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok()).map_or(0, |d| d.as_nanos());
    (0, BuildHasherDefault::<DefaultHasher>::default().hash_one(path), about.len(), time as i128, 0)
}

/// The SHA-256 of the file at `path`, read once a run unless something about it changes.
///
/// # Errors
/// It cannot be read, or is no plain file.
pub fn digest_now(path: &Path) -> io::Result<String> {
    let about = fs_err::symlink_metadata(path)?;
    if !about.is_file() {
        return Err(no_plain_file(path));
    }
    let before = stamp(&about, path);
    let known = HASHED.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default().get(&before).cloned();
    if let Some(known) = known {
        return Ok(known);
    }
    let started = Instant::now();
    let (digest, size) = digest_file(path)?;
    {
        let mut spent = SPENT.lock().unwrap_or_else(PoisonError::into_inner);
        *spent = (spent.0 + started.elapsed(), spent.1 + size);
    }
    // Whoever writes while it is read is found out the next time.
    if stamp(&fs_err::symlink_metadata(path)?, path) == before {
        let mut hashed = HASHED.lock().unwrap_or_else(PoisonError::into_inner);
        hashed.get_or_insert_default().insert(before, digest.clone());
    }
    Ok(digest)
}

/// Seconds, added up over all threads, and bytes that judging took in this run.
pub fn spent() -> (Duration, u64) {
    *SPENT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How much of a result is used, and so judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// All of it.
    Whole,
    /// The files at its top, which are handed over; its folders are for later stages.
    Top,
}

/// What stands in a stage's result.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// Path, with `/` → what stands there.
    files: BTreeMap<String, Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Entry {
    /// A file, by its SHA-256.
    Sha256(String),
    /// A link, by what it leads to.
    Link(String),
}

impl Listing {
    /// Lists the folder `out`, and hashes all of it.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn of(out: &Path) -> io::Result<Self> {
        let found = walk(out, Extent::Whole)?;
        let hashed: io::Result<Vec<(String, Entry)>> = found
            .into_par_iter()
            .map(|(name, path)| {
                let about = fs_err::symlink_metadata(&path)?;
                let entry = if about.is_symlink() {
                    Entry::Link(fs_err::read_link(&path)?.to_string_lossy().into_owned())
                } else {
                    Entry::Sha256(digest_now(&path)?)
                };
                Ok((name, entry))
            })
            .collect();
        Ok(Self { files: hashed?.into_iter().collect() })
    }

    /// In what the folder `out`, to this extent, is not what it was: one sentence, or nothing. What Python compiled there
    /// since is removed: it is code too, and nobody misses it.
    ///
    /// # Errors
    /// Something in it cannot be read, and so nobody knows.
    pub fn differs(&self, out: &Path, extent: Extent) -> io::Result<Option<String>> {
        match self.compared(out, extent) {
            Err(e) if says_what_stands_there(&e) => Ok(Some(e.to_string())),
            done => done,
        }
    }

    fn compared(&self, out: &Path, extent: Extent) -> io::Result<Option<String>> {
        let mut found: BTreeMap<String, PathBuf> = walk(out, extent)?.into_iter().collect();
        found.retain(|name, path| {
            let compiled = !self.files.contains_key(name) && name.contains("__pycache__/");
            !(compiled && is_gone(std::fs::remove_file(path)))
        });
        if let Some(more) = found.keys().find(|name| !self.files.contains_key(*name)) {
            return Ok(Some(format!("'{}' was put there", more.escape_debug())));
        }
        let wrong: io::Result<Vec<Option<String>>> = self
            .files
            .par_iter()
            .filter(|(name, _)| extent == Extent::Whole || !name.contains('/'))
            .map(|(name, entry)| {
                let Some(path) = found.get(name) else { return Ok(Some(format!("'{}' is gone", name.escape_debug()))) };
                let same = match entry {
                    Entry::Link(to) => is_link(path)? && fs_err::read_link(path)?.to_string_lossy() == *to,
                    Entry::Sha256(digest) => !is_link(path)? && digest_now(path)? == *digest,
                };
                Ok((!same).then(|| format!("'{}' was changed", name.escape_debug())))
            })
            .collect();
        Ok(wrong?.into_iter().flatten().next())
    }

    /// What [`Listing::to_json`] wrote; `None` if it is something else.
    pub fn of_json(text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text).ok()
    }

    /// As JSON, and the SHA-256 of that text.
    ///
    /// # Errors
    /// None that a list of names and digests can have.
    pub fn to_json(&self) -> io::Result<(Vec<u8>, String)> {
        let text = serde_json::to_vec_pretty(self)?;
        let digest = sha256(&text);
        Ok((text, digest))
    }
}

fn is_link(path: &Path) -> io::Result<bool> {
    Ok(fs_err::symlink_metadata(path)?.is_symlink())
}

/// Whether an error says what stands at a path, or that nothing does: then it is not what was there. Any other one (a disk
/// or a server that fails, no more open files, a file that is not ours to read) says nothing of that.
pub fn says_what_stands_there(error: &io::Error) -> bool {
    use io::ErrorKind::{IsADirectory, NotADirectory, NotFound, Other};
    // The last one is ours: of what is no plain file.
    matches!(error.kind(), NotFound | NotADirectory | IsADirectory | Other)
}

/// Whether a file that was to be removed is not there any more: another run that looks at the same folder removes it as
/// well, and Python, which writes such a file under another name first, may have renamed it since it was listed.
fn is_gone(removed: io::Result<()>) -> bool {
    removed.map_or_else(|e| e.kind() == io::ErrorKind::NotFound, |()| true)
}

fn no_plain_file(path: &Path) -> io::Error {
    io::Error::other(format!("{} is no plain file", path.display()))
}

/// All files and links below `out`, or at its top.
fn walk(out: &Path, extent: Extent) -> io::Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    let depth = if extent == Extent::Whole { usize::MAX } else { 1 };
    for entry in walkdir::WalkDir::new(out).max_depth(depth) {
        let entry = entry?;
        if entry.file_type().is_dir() {
            continue;
        }
        if !entry.file_type().is_file() && !entry.file_type().is_symlink() {
            return Err(no_plain_file(entry.path()));
        }
        found.push((below(out, entry.path()), entry.into_path()));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn what_cannot_be_read_is_no_change() {
        for kind in [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory, io::ErrorKind::IsADirectory] {
            assert!(says_what_stands_there(&io::Error::from(kind)), "{kind}");
        }
        assert!(says_what_stands_there(&no_plain_file(Path::new("x"))));
        let kinds = [io::ErrorKind::Interrupted, io::ErrorKind::PermissionDenied, io::ErrorKind::TimedOut];
        let mut others: Vec<io::Error> = kinds.map(io::Error::from).into();
        // EIO, ENFILE, EMFILE.
        if cfg!(unix) {
            others.extend([5, 23, 24].map(io::Error::from_raw_os_error));
        }
        for error in others {
            assert!(!says_what_stands_there(&error), "{error}");
        }
    }

    #[test]
    #[cfg(unix)]
    fn what_stands_in_the_place_of_a_file_or_a_link_is_a_change() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path();
        std::fs::write(out.join("file"), "1").unwrap();
        std::os::unix::fs::symlink("file", out.join("link")).unwrap();
        let listing = Listing::of(out).unwrap();
        let said = || listing.differs(out, Extent::Whole).unwrap();
        assert_eq!(said(), None);
        std::fs::remove_file(out.join("link")).unwrap();
        std::fs::write(out.join("link"), "file").unwrap();
        assert_eq!(said().unwrap(), "'link' was changed");
        std::fs::remove_file(out.join("link")).unwrap();
        std::os::unix::fs::symlink("other", out.join("link")).unwrap();
        assert_eq!(said().unwrap(), "'link' was changed");
        std::fs::remove_file(out.join("link")).unwrap();
        std::os::unix::fs::symlink("file", out.join("link")).unwrap();
        std::fs::remove_file(out.join("file")).unwrap();
        std::os::unix::fs::symlink("link", out.join("file")).unwrap();
        assert_eq!(said().unwrap(), "'file' was changed");
        // A socket is neither.
        std::fs::remove_file(out.join("file")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(out.join("file")).unwrap();
        assert!(said().unwrap().ends_with("file is no plain file"));
        std::fs::remove_dir_all(out).unwrap();
        assert!(said().is_some());
    }

    #[test]
    fn what_python_compiled_is_no_change_to_several_who_look_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path();
        std::fs::create_dir(out.join("__pycache__")).unwrap();
        std::fs::write(out.join("a.py"), "x = 1\n").unwrap();
        let listing = Listing::of(out).unwrap();
        for _ in 0..50 {
            for i in 0..40 {
                std::fs::write(out.join(format!("__pycache__/{i}.cpython-311.pyc")), "compiled").unwrap();
            }
            let begun = Barrier::new(4);
            let said: Vec<Option<String>> = std::thread::scope(|scope| {
                let look = || {
                    begun.wait();
                    listing.differs(out, Extent::Whole).unwrap()
                };
                let all = [0; 4].map(|_| scope.spawn(look));
                all.map(|one| one.join().unwrap()).into()
            });
            assert!(said.iter().all(Option::is_none), "{said:?}");
        }
    }
}
