//! Pages and small files in memory, read again when the file on disk is another one.

use std::collections::HashMap;
use std::fs::Metadata;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::SystemTime;

use axum::body::Bytes;
use axum::http::HeaderValue;

use super::by_kernel::{ByKernel, Memory};
use crate::mirror::index::Index;
use crate::mirror::page::Hashes;
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
    all: RwLock<All<T>>,
}

#[derive(Debug)]
struct All<T> {
    size: usize,
    of: HashMap<PathBuf, (Stamp, usize, Arc<T>)>,
}

impl<T> Kept<T> {
    fn of(most: usize) -> Self {
        Self { most, all: RwLock::new(All { size: 0, of: HashMap::new() }) }
    }

    /// What `make` makes of the file at `path`, which is `about` that, and how much that takes; `None` where it makes
    /// nothing.
    fn get(&self, path: &Path, about: &Metadata, make: impl FnOnce() -> Option<(T, usize)>) -> Option<Arc<T>> {
        let stamp = (about.modified().ok()?, about.len(), platform::file_id(about));
        if let Some((of, _, kept)) = self.all.read().ok()?.of.get(path)
            && *of == stamp
        {
            return Some(Arc::clone(kept));
        }
        let (made, size) = make()?;
        let made = Arc::new(made);
        let mut all = self.all.write().ok()?;
        if let Some((_, old, _)) = all.of.remove(path) {
            all.size -= old;
        }
        if all.size + size > self.most {
            all.of.clear();
            all.size = 0;
        }
        all.size += size;
        all.of.insert(path.to_owned(), (stamp, size, Arc::clone(&made)));
        Some(made)
    }
}

impl Cache {
    /// The page at `path`; `None` where there is none.
    pub fn get(&self, path: &Path) -> Option<Arc<Page>> {
        self.pages.get(path, &std::fs::metadata(path).ok()?, || {
            let plain = platform::read_regular(path, u64::MAX).ok()?;
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(&plain).ok()?;
            let gzip = encoder.finish().ok()?;
            // The kernel keeps them too.
            let size = 2 * (plain.len() + gzip.len());
            let digest = sha256(&plain)[..32].to_owned();
            let plain = Sent::new(plain, &format!("\"{digest}\""), &self.memory)?;
            let gzip = Sent::new(gzip, &format!("\"{digest}-gzip\""), &self.memory)?;
            Some((Page { plain, gzip }, size))
        })
    }

    /// What a page says of a file (a wheel, its METADATA, what tells of its making); `None` where none names it.
    pub fn published(&self, index: &Index, project: &str, name: &str) -> Option<Published> {
        if index.leads_out(project) {
            return None;
        }
        let path = index.root().join("simple").join(project).join("index.json");
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
