//! Pages and small files in memory, read again when the file on disk is another one.

use std::collections::HashMap;
use std::fs::Metadata;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::SystemTime;

use axum::body::Bytes;
use axum::http::HeaderValue;

use super::accept::Form;
use super::by_kernel::{ByKernel, Memory};
use crate::mirror::index::Index;
use crate::mirror::page::{HERE, Hashes, MOST_PAGE};
use crate::mirror::wheel::sha256;
use crate::platform;

/// Most bytes of pages that are kept, and most files whose digests are: an index may have more than fits in memory, and
/// whoever asks for all of it shall not fill ours.
const MOST_KEPT: usize = 48 << 20;
const MOST_FILES: usize = 100_000;
/// Largest file that is kept, and most bytes of all of them: METADATA is asked for far more often than wheels are.
const SMALL: u64 = 64 << 10;
const MOST_SMALL: usize = 16 << 20;

/// One encoding of a page, with what a client can ask by whether it changed.
#[derive(Debug)]
pub struct Sent {
    /// The body, shared by all who are sent it.
    pub bytes: Bytes,
    /// Strong ETag: of these bytes.
    pub etag: HeaderValue,
    /// The same bytes as the kernel has them.
    pub by_kernel: Option<ByKernel>,
}

impl Sent {
    fn new(bytes: Vec<u8>, etag: &str, memory: &Memory) -> Option<Self> {
        let (bytes, etag) = (Bytes::from(bytes), HeaderValue::from_str(etag).ok()?);
        Some(Self { by_kernel: memory.keep(&bytes), bytes, etag })
    }
}

/// The bytes of a page, ready to be sent.
#[derive(Debug)]
pub struct Page {
    /// For clients that take no gzip.
    pub plain: Sent,
    /// Gzipped, once for all clients.
    pub gzip: Sent,
    /// Where in `plain` stands what the server's own address stands in for.
    pub here: Option<usize>,
}

/// What a page says of a file.
#[derive(Debug, Clone)]
pub struct Published {
    /// Strong ETag: the file's SHA-256.
    pub etag: HeaderValue,
    /// Bytes, where the page says so.
    pub size: Option<u64>,
}

/// All pages that were asked for, and the digests of what projects' pages name.
#[derive(Debug)]
pub struct Cache {
    pages: Kept<Page>,
    files: Kept<HashMap<String, Published>>,
    small: Kept<Bytes>,
    memory: Memory,
}

impl Default for Cache {
    fn default() -> Self {
        let memory = Memory::default();
        Self { pages: Kept::of(MOST_KEPT), files: Kept::of(MOST_FILES), small: Kept::of(MOST_SMALL), memory }
    }
}

/// What tells one version of a file from another: its time and size, and what the system knows it by.
type Stamp = (SystemTime, u64, platform::FileId);

/// What was made of files, with the version of the file that it was made of.
#[derive(Debug)]
struct Kept<T> {
    most: usize,
    /// How often something was asked for.
    asked: AtomicU64,
    all: RwLock<All<T>>,
}

#[derive(Debug)]
struct All<T> {
    size: usize,
    of: HashMap<PathBuf, One<T>>,
}

/// What was made of one file.
#[derive(Debug)]
struct One<T> {
    stamp: Stamp,
    size: usize,
    /// When it was asked for last.
    used: AtomicU64,
    made: Arc<T>,
}

impl<T> All<T> {
    /// What was made of this version of the file at `path`.
    fn get(&self, path: &Path, stamp: &Stamp, now: u64) -> Option<Arc<T>> {
        let one = self.of.get(path).filter(|one| one.stamp == *stamp)?;
        one.used.store(now, Ordering::Relaxed);
        Some(Arc::clone(&one.made))
    }

    fn remove(&mut self, path: &Path) {
        if let Some(one) = self.of.remove(path) {
            self.size -= one.size;
        }
    }

    /// Lets go of what was not asked for for longest, until no more than `most` is left.
    fn shrink(&mut self, most: usize) {
        let mut by_use: Vec<(u64, PathBuf)> =
            self.of.iter().map(|(path, one)| (one.used.load(Ordering::Relaxed), path.clone())).collect();
        by_use.sort_unstable();
        for (_, path) in by_use {
            if self.size <= most {
                return;
            }
            self.remove(&path);
        }
    }
}

impl<T> Kept<T> {
    fn of(most: usize) -> Self {
        Self { most, asked: AtomicU64::new(0), all: RwLock::new(All { size: 0, of: HashMap::new() }) }
    }

    /// What `make` makes of the file at `path`, which is `about` that, and how much that takes; `None` where it makes
    /// nothing.
    fn get(&self, path: &Path, about: &Metadata, make: impl FnOnce() -> Option<(T, usize)>) -> Option<Arc<T>> {
        let stamp = (about.modified().ok()?, about.len(), platform::file_id(about));
        let now = self.asked.fetch_add(1, Ordering::Relaxed);
        let kept = self.all.read().ok()?.get(path, &stamp, now);
        if kept.is_some() {
            return kept;
        }
        let (made, size) = make()?;
        let mut all = self.all.write().ok()?;
        // Of what others made meanwhile there is one, whoever holds it.
        let kept = all.get(path, &stamp, now);
        if kept.is_some() {
            return kept;
        }
        all.remove(path);
        if all.size + size > self.most {
            // Half of it at once: what is asked for all the time stays, and it is not looked for at every miss.
            all.shrink(self.most.saturating_sub(size).min(self.most / 2));
        }
        let made = Arc::new(made);
        all.size += size;
        let one = One { stamp, size, used: AtomicU64::new(now), made: Arc::clone(&made) };
        all.of.insert(path.to_owned(), one);
        Some(made)
    }
}

impl Cache {
    /// The page at `path`; `None` where there is none.
    pub fn get(&self, path: &Path) -> Option<Arc<Page>> {
        self.page(path, || true)
    }

    /// A page of a project; `None` for what stands in a folder without the project's JSON, or behind a link: that is none
    /// of this index.
    pub fn of_project(&self, index: &Index, project: &str, form: Form) -> Option<Arc<Page>> {
        let folder = index.page(project);
        let is_there = || folder.join(Form::Json.file()).symlink_metadata().is_ok_and(|about| about.is_file());
        if form != Form::Json && !is_there() {
            return None;
        }
        // What a link leads to later is another file, and is judged then.
        self.page(&folder.join(form.file()), || !index.leads_out(project))
    }

    /// The page at `path`, which is read where `may` says so.
    fn page(&self, path: &Path, may: impl FnOnce() -> bool) -> Option<Arc<Page>> {
        self.pages.get(path, &std::fs::metadata(path).ok()?, || {
            if !may() {
                return None;
            }
            let plain = platform::read_regular(path, MOST_PAGE).ok()?;
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(&plain).ok()?;
            let gzip = encoder.finish().ok()?;
            // The kernel keeps them too.
            let size = 2 * (plain.len() + gzip.len());
            let digest = sha256(&plain)[..32].to_owned();
            let here = memchr::memmem::find(&plain, HERE.as_bytes());
            let plain = Sent::new(plain, &format!("\"{digest}\""), &self.memory)?;
            let gzip = Sent::new(gzip, &format!("\"{digest}-gzip\""), &self.memory)?;
            Some((Page { plain, gzip, here }, size))
        })
    }

    /// What a page says of a file (a wheel, its METADATA, what tells of its making); `None` where none names it.
    pub fn published(&self, index: &Index, project: &str, name: &str) -> Option<Published> {
        // Its page is judged when it is read; files of any size are read after this.
        if index.files(project).is_symlink() {
            return None;
        }
        let path = index.page(project).join(Form::Json.file());
        let files = self.files.get(&path, &std::fs::metadata(&path).ok()?, || {
            let of_digest = |digest: &str, size| {
                Some(Published { etag: HeaderValue::from_str(&format!("\"{digest}\"")).ok()?, size })
            };
            let of_hashes = |hashes: &Hashes, size| of_digest(hashes.get("sha256").map_or("", String::as_str), size);
            let mut of = HashMap::new();
            for file in index.project(project).ok()?.files {
                let metadata = (format!("{}.metadata", file.filename), of_hashes(&file.core_metadata, None)?);
                let wheel = (file.filename, of_hashes(&file.hashes, Some(file.size))?);
                of.extend([metadata, wheel]);
                for (name, digest) in file.beside {
                    of.insert(name, of_digest(&digest, None)?);
                }
            }
            let size = of.len();
            Some((of, size))
        });
        files?.get(name).cloned()
    }

    /// All of a small file at `path`, which is `about` that; `None` for one that is not small, or is another one by now.
    pub fn small(&self, path: &Path, about: &Metadata) -> Option<Bytes> {
        if about.len() > SMALL {
            return None;
        }
        let read = || {
            let mut bytes = Vec::with_capacity(usize::try_from(about.len()).ok()? + 1);
            platform::open_regular(path, false).ok()?.take(SMALL + 1).read_to_end(&mut bytes).ok()?;
            let size = bytes.len();
            (size as u64 == about.len()).then(|| (bytes.into(), size.max(1)))
        };
        self.small.get(path, about, read).map(|kept| kept.as_ref().clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_all_the_time_stays_when_others_fill_it() {
        let dir = tempfile::tempdir().unwrap();
        let kept = Kept::of(10);
        let ask = |name: &str, size: usize| {
            let path = dir.path().join(name);
            if !path.exists() {
                std::fs::write(&path, name).unwrap();
            }
            let mut made = false;
            kept.get(&path, &std::fs::metadata(&path).unwrap(), || {
                made = true;
                Some(((), size))
            });
            made
        };
        assert!(ask("wanted", 3) && !ask("wanted", 3));
        for i in 0..100 {
            assert!(ask(&format!("other-{i}"), 2));
            assert!(!ask("wanted", 3), "after {i} others");
            assert!(kept.all.read().unwrap().size <= 10);
        }
        // What alone is more than that is kept too, and once.
        assert!(ask("large", 11) && !ask("large", 11) && ask("wanted", 3));
        assert_eq!(kept.all.read().unwrap().size, 3);
    }
}
