//! Pages in memory, read again when the file on disk is another one.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::SystemTime;

use axum::body::Bytes;

use crate::mirror::index::Index;
use crate::mirror::wheel::sha256;

/// A page.
#[derive(Debug)]
pub struct Page {
    stamp: (SystemTime, u64),
    /// As it is.
    pub plain: Bytes,
    /// Gzipped, once for all clients.
    pub gzip: Bytes,
    /// Strong ETag, of the plain bytes.
    pub etag: String,
}

/// Digests of what a project's page names.
#[derive(Debug)]
struct Digests {
    stamp: (SystemTime, u64),
    of: HashMap<String, String>,
}

/// All pages that were asked for.
#[derive(Debug, Default)]
pub struct Cache {
    pages: RwLock<HashMap<PathBuf, Arc<Page>>>,
    digests: RwLock<HashMap<PathBuf, Arc<Digests>>>,
}

/// What tells one version of a file from another: pages are put in place by rename, so their time is
/// that of their making.
fn stamp(path: &Path) -> Option<(SystemTime, u64)> {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.modified().ok()?, meta.len()))
}

impl Cache {
    /// The page at `path`; `None` where there is none.
    pub fn get(&self, path: &Path) -> Option<Arc<Page>> {
        let stamp = stamp(path)?;
        if let Some(page) = self.pages.read().ok()?.get(path)
            && page.stamp == stamp
        {
            return Some(Arc::clone(page));
        }
        let plain = std::fs::read(path).ok()?;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&plain).ok()?;
        let page = Page {
            stamp,
            gzip: encoder.finish().ok()?.into(),
            etag: format!("\"{}\"", &sha256(&plain)[..32]),
            plain: plain.into(),
        };
        let page = Arc::new(page);
        self.pages.write().ok()?.insert(path.to_owned(), Arc::clone(&page));
        Some(page)
    }

    /// SHA-256 of a published file (a wheel, its METADATA, what tells of its making); `None` where no
    /// page names it.
    pub fn digest(&self, index: &Index, project: &str, name: &str) -> Option<String> {
        let path = index.root().join("simple").join(project).join("index.json");
        let stamp = stamp(&path)?;
        let known = self.digests.read().ok()?.get(&path).filter(|d| d.stamp == stamp).cloned();
        let digests = if let Some(known) = known {
            known
        } else {
            let mut of = HashMap::new();
            for file in index.project(project).ok()?.files {
                let digest =
                    |h: &std::collections::BTreeMap<String, String>| h.get("sha256").cloned().unwrap_or_default();
                of.insert(format!("{}.metadata", file.filename), digest(&file.core_metadata));
                of.insert(file.filename.clone(), digest(&file.hashes));
                of.extend(file.beside);
            }
            let digests = Arc::new(Digests { stamp, of });
            self.digests.write().ok()?.insert(path, Arc::clone(&digests));
            digests
        };
        digests.of.get(name).cloned()
    }
}
