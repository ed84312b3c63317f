//! Pages in memory, read again when the file on disk is another one.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::SystemTime;

use axum::body::Bytes;
use axum::http::HeaderValue;

use crate::mirror::index::Index;
use crate::mirror::page::Hashes;
use crate::mirror::wheel::sha256;

/// Most bytes of pages that are kept, and most files whose digests are: an index may have more than fits in memory, and
/// whoever asks for all of it shall not fill ours.
const MOST_KEPT: usize = 48 << 20;
const MOST_FILES: usize = 100_000;

/// One encoding of a page, with what a client can ask by whether it changed.
#[derive(Debug)]
pub struct Sent {
    /// The body, shared by all who are sent it.
    pub bytes: Bytes,
    /// Strong ETag: of these bytes.
    pub etag: HeaderValue,
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
    /// SHA-256, hexadecimal.
    pub digest: String,
    /// Bytes, where the page says so.
    pub size: Option<u64>,
}

/// All pages that were asked for, and the digests of what projects' pages name.
#[derive(Debug)]
pub struct Cache {
    pages: Kept<Page>,
    files: Kept<HashMap<String, Published>>,
}

impl Default for Cache {
    fn default() -> Self {
        Self { pages: Kept::of(MOST_KEPT), files: Kept::of(MOST_FILES) }
    }
}

/// What tells one version of a file from another: pages are put in place by rename, so their time is
/// that of their making.
type Stamp = (SystemTime, u64);

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

    /// What `make` makes of the file at `path`, and how much that takes; `None` where there is none.
    fn get(&self, path: &Path, make: impl FnOnce() -> Option<(T, usize)>) -> Option<Arc<T>> {
        let meta = std::fs::metadata(path).ok()?;
        let stamp = (meta.modified().ok()?, meta.len());
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
        self.pages.get(path, || {
            let plain = std::fs::read(path).ok()?;
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(&plain).ok()?;
            let gzip = encoder.finish().ok()?;
            let size = plain.len() + gzip.len();
            let digest = &sha256(&plain)[..32];
            let sent = |bytes: Vec<u8>, etag: String| {
                Some(Sent { bytes: bytes.into(), etag: HeaderValue::from_str(&etag).ok()? })
            };
            let (plain, gzip) = (sent(plain, format!("\"{digest}\""))?, sent(gzip, format!("\"{digest}-gzip\""))?);
            Some((Page { plain, gzip }, size))
        })
    }

    /// What a page says of a file (a wheel, its METADATA, what tells of its making); `None` where none names it.
    pub fn published(&self, index: &Index, project: &str, name: &str) -> Option<Published> {
        let path = index.root().join("simple").join(project).join("index.json");
        let files = self.files.get(&path, || {
            let mut of = HashMap::new();
            for mut file in index.project(project).ok()?.files {
                let digest = |hashes: &mut Hashes| hashes.remove("sha256").unwrap_or_default();
                let metadata = Published { digest: digest(&mut file.core_metadata), size: None };
                of.insert(format!("{}.metadata", file.filename), metadata);
                of.insert(file.filename, Published { digest: digest(&mut file.hashes), size: Some(file.size) });
                of.extend(file.beside.into_iter().map(|(name, digest)| (name, Published { digest, size: None })));
            }
            let size = of.len();
            Some((of, size))
        });
        files?.get(name).cloned()
    }
}
