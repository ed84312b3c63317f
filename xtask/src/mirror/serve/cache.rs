//! Pages in memory, read again when the file on disk is another one.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::SystemTime;

use axum::body::Bytes;

use crate::mirror::index::Index;
use crate::mirror::page::Hashes;
use crate::mirror::wheel::sha256;

/// A page.
#[derive(Debug)]
pub struct Page {
    /// As it is.
    pub plain: Bytes,
    /// Gzipped, once for all clients.
    pub gzip: Bytes,
    /// Strong ETag, of the plain bytes.
    pub etag: String,
}

/// All pages that were asked for, and the digests of what projects' pages name.
#[derive(Debug, Default)]
pub struct Cache {
    pages: Kept<Page>,
    digests: Kept<HashMap<String, String>>,
}

/// What tells one version of a file from another: pages are put in place by rename, so their time is
/// that of their making.
type Stamp = (SystemTime, u64);

/// What was made of files, with the version of the file that it was made of.
#[derive(Debug)]
struct Kept<T>(RwLock<HashMap<PathBuf, (Stamp, Arc<T>)>>);

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

impl<T> Kept<T> {
    /// What `make` makes of the file at `path`; `None` where there is none.
    fn get(&self, path: &Path, make: impl FnOnce() -> Option<T>) -> Option<Arc<T>> {
        let meta = std::fs::metadata(path).ok()?;
        let stamp = (meta.modified().ok()?, meta.len());
        if let Some((of, kept)) = self.0.read().ok()?.get(path)
            && *of == stamp
        {
            return Some(Arc::clone(kept));
        }
        let made = Arc::new(make()?);
        self.0.write().ok()?.insert(path.to_owned(), (stamp, Arc::clone(&made)));
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
            let etag = format!("\"{}\"", &sha256(&plain)[..32]);
            Some(Page { gzip: encoder.finish().ok()?.into(), etag, plain: plain.into() })
        })
    }

    /// SHA-256 of a published file (a wheel, its METADATA, what tells of its making); `None` where no
    /// page names it.
    pub fn digest(&self, index: &Index, project: &str, name: &str) -> Option<String> {
        let path = index.root().join("simple").join(project).join("index.json");
        let digests = self.digests.get(&path, || {
            let mut of = HashMap::new();
            for mut file in index.project(project).ok()?.files {
                let digest = |hashes: &mut Hashes| hashes.remove("sha256").unwrap_or_default();
                of.insert(format!("{}.metadata", file.filename), digest(&mut file.core_metadata));
                of.insert(file.filename, digest(&mut file.hashes));
                of.extend(file.beside);
            }
            Some(of)
        });
        digests?.get(name).cloned()
    }
}
