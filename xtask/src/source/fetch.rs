//! Fetching: many coordinates at once, each source's coordinates in turn, every byte hashed as it
//! arrives. Nothing enters the store under a digest that it does not have.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rayon::prelude::*;
use sha2::{Digest, Sha256};
use ureq::Agent;

use super::http::{self, Failure, Progress};
use super::unpack::Bounds;
use super::{crates, debian, git, pypi};
use crate::error::{Context, Error, Kind, Result};
use crate::event::{Event, Sink};
use crate::platform;
use crate::recipe::Coordinate;
use crate::store::{Blob, Store, copy_digesting, digest_file, remove_if_there};

/// Downloads at a time.
const PARALLEL: usize = 6;
/// Requests for one coordinate before the next one is tried.
const ATTEMPTS: u32 = 5;

/// One thing that is wanted.
#[derive(Debug, Clone)]
pub struct Want {
    /// Name, for messages.
    pub name: String,
    /// Tried in turn; which one answers is nothing to the digest.
    pub coordinates: Vec<Coordinate>,
    /// Digest and size, from the lock; `None` while a lock is being written.
    pub expected: Option<(String, u64)>,
}

/// Gets bytes into the store.
pub struct Fetcher<'a> {
    /// Where blobs go.
    pub store: &'a Store,
    /// Who is told.
    pub events: &'a dyn Sink,
    /// Whether the network must not be touched.
    pub offline: bool,
    /// What relative `file:` coordinates are relative to.
    pub root: &'a Path,
    /// What the tree of a git commit may have, whatever its lock says.
    pub bounds: Bounds,
}

impl Fetcher<'_> {
    /// Gets all of `wants`, in their order. What is in the store already costs its hashing.
    ///
    /// # Errors
    /// The world: no coordinate of one gave the bytes of its digest, or `offline` and it is not in the store.
    pub fn fetch_all(&self, wants: &[Want]) -> Result<Vec<Blob>> {
        // Each is hashed: a file that stands in the store is judged when it is used.
        let stored: Result<Vec<Option<Blob>>> = wants.par_iter().map(|w| self.stored(w)).collect();
        for found in self.store.take_found() {
            self.events.warn(found);
        }
        let mut blobs = stored?;
        let missing: Vec<usize> = (0..wants.len()).filter(|&i| blobs[i].is_none()).collect();
        if missing.is_empty() {
            return Ok(blobs.into_iter().flatten().collect());
        }
        if self.offline {
            let remote: Vec<&Want> = missing
                .iter()
                .map(|&i| &wants[i])
                .filter(|w| w.coordinates.iter().all(Coordinate::is_remote))
                .collect();
            if !remote.is_empty() {
                let list: String = remote
                    .iter()
                    .map(|w| {
                        let size =
                            w.expected.as_ref().map_or(String::new(), |(d, s)| format!("  sha256:{d}  {s} bytes"));
                        format!(
                            "\n    {}{size}\n      {}",
                            w.name,
                            w.coordinates.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n      ")
                        )
                    })
                    .collect();
                return Err(Error::world(
                    "offline",
                    format!("--offline, and the store lacks {} of {} files:{list}", remote.len(), wants.len()),
                )
                .next(
                    "run `cargo xtask fetch` once on a machine with network and this store, or copy its store here",
                ));
            }
        }
        let agent = http::agent();
        let next = AtomicUsize::new(0);
        let results: Mutex<Vec<(usize, Result<Blob>)>> = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..PARALLEL.min(missing.len()) {
                scope.spawn(|| {
                    while let Some(&i) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let result = self.fetch(&agent, &wants[i]);
                        let failed = result.is_err();
                        results.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((i, result));
                        if failed {
                            next.store(usize::MAX / 2, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        let mut results = results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        results.sort_by_key(|(i, _)| *i);
        for (i, result) in results {
            blobs[i] = Some(result?);
        }
        platform::check_cancelled()?;
        Ok(blobs.into_iter().flatten().collect())
    }

    fn stored(&self, want: &Want) -> Result<Option<Blob>> {
        let Some((digest, size)) = &want.expected else { return Ok(None) };
        self.store.blob(digest, *size)
    }

    fn fetch(&self, agent: &Agent, want: &Want) -> Result<Blob> {
        // The same file may be wanted by another run at this moment.
        let id = match &want.expected {
            Some((digest, _)) => digest.clone(),
            None => hex::encode(Sha256::digest(want.coordinates.iter().map(ToString::to_string).collect::<String>())),
        };
        let _lock = self.store.lock(&format!("blob-{}", &id[..20]), self.events)?;
        if let Some(blob) = self.stored(want)? {
            return Ok(blob);
        }
        let mut reasons = Vec::new();
        let mut mismatch = None;
        for coordinate in &want.coordinates {
            platform::check_cancelled()?;
            match self.fetch_one(agent, want, coordinate) {
                Ok(blob) => return Ok(blob),
                Err(e) if matches!(e.kind(), Some(Kind::Cancelled | Kind::DiskFull | Kind::Permission)) => {
                    return Err(e);
                }
                Err(e) => {
                    reasons.push(format!("\n    {coordinate}: {}", e.what()));
                    if e.kind() == Some(Kind::Digest) {
                        mismatch = Some(e);
                    }
                }
            }
        }
        // Wrong bytes are the worst thing that can have happened: that is what gets reported.
        if let Some(e) = mismatch {
            return Err(e.doing(format!("fetching {}", want.name)));
        }
        let e = Error::world("fetch", format!("'{}' cannot be had from any of its coordinates:{}", want.name, reasons.concat()))
            .next("check the network; add a coordinate that works here to the recipe (the lock's digest judges them all alike)")
            .next("or put the file anywhere and add `file:<path>`");
        if !want.coordinates.iter().any(|c| matches!(c, Coordinate::Debian(_))) {
            return Err(e);
        }
        // A pool drops what a newer version replaces.
        Err(e.next(format!("or name a mirror that keeps old packages: {}", debian::MIRROR_VARIABLE)))
    }

    fn fetch_one(&self, agent: &Agent, want: &Want, coordinate: &Coordinate) -> Result<Blob> {
        match coordinate {
            Coordinate::File(path) => {
                let path = self.root.join(path);
                self.adopt_copy(want, coordinate, &path)
            }
            Coordinate::Crate { name, version } => {
                let path = crates::download(name, version)?;
                self.adopt_copy(want, coordinate, &path)
            }
            Coordinate::Git { url, commit } => {
                let part = self.part(want, coordinate);
                let mut out = std::io::BufWriter::new(fs_err::File::create(&part)?);
                // What is locked is as large as the lock says: headers and padding are part of it.
                let bounds = want.expected.as_ref().map_or(self.bounds, |(_, size)| Bounds {
                    bytes: self.bounds.bytes.min(*size),
                    members: self.bounds.members.min(size / 512),
                });
                git::archive(url, commit, &self.store.cache("git"), bounds, &mut out, self.events)?;
                drop(out);
                let (digest, size) = digest_file(&part)?;
                self.judge(want, coordinate, &part, digest, size)
            }
            Coordinate::Http(url) => self.download(agent, want, coordinate, std::slice::from_ref(url)),
            Coordinate::Debian(path) => {
                let urls: Vec<String> = debian::mirrors()?
                    .iter()
                    .map(|m| format!("{m}/pool/{}", path.replace('+', "%2B").replace('~', "%7E")))
                    .collect();
                if let Some(local) =
                    urls.iter().filter_map(|u| u.strip_prefix("file:")).map(PathBuf::from).find(|p| p.is_file())
                {
                    return self.adopt_copy(want, coordinate, &local);
                }
                self.download(agent, want, coordinate, &urls)
            }
            Coordinate::Pypi { name, file, .. } => {
                let found = pypi::files(agent, name)?.into_iter().find(|f| f.filename == *file);
                let found = found.ok_or_else(|| {
                    Error::world("no-such-file", format!("the package index has no file {file} for {name}"))
                })?;
                self.download(agent, want, coordinate, &[found.url])
            }
        }
    }

    /// Where the bytes of `want` are collected while they come from `coordinate`. Another digest is
    /// another file: `file:x` means different bytes in different folders. Where there is none, all of its coordinates
    /// stand in, as in the lock that whoever writes there holds.
    fn part(&self, want: &Want, coordinate: &Coordinate) -> PathBuf {
        let all = || want.coordinates.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        let expected = want.expected.as_ref().map_or_else(all, |(digest, _)| digest.clone());
        let id = hex::encode(Sha256::digest(format!("{coordinate} {expected} {}", self.root.display()).as_bytes()));
        self.store.part(&format!("{}-{}", &id[..16], coordinate.file_name()))
    }

    fn adopt_copy(&self, want: &Want, coordinate: &Coordinate, path: &Path) -> Result<Blob> {
        let part = self.part(want, coordinate);
        // A recipe may name any file: of a device there is no end, a pipe keeps whoever opens it waiting, and what is
        // larger than the lock says is something else.
        let named = |e: std::io::Error| std::io::Error::new(e.kind(), format!("{}: {e}", path.display()));
        let from = platform::open_regular(path, true).map_err(named)?;
        let most = want.expected.as_ref().map_or(self.bounds.bytes, |(_, size)| *size);
        let mut to = fs_err::File::create(&part)?;
        let (digest, size) = copy_digesting(&mut from.take(most.saturating_add(1)), &mut to)?;
        drop(to);
        if size > most {
            remove_if_there(&part)?;
            let code = if want.expected.is_some() { Kind::Digest.code() } else { "fetch" };
            let what = format!("{} has more than the {most} bytes that it may have", path.display());
            return Err(
                Error::world(code, what).next("if it is the right one, run `cargo xtask lock` and review the change")
            );
        }
        if let Some(expected) = want.expected.as_ref().filter(|(expected, _)| *expected != digest) {
            // It may be anything of the user's: what stands here already is not kept a second time.
            remove_if_there(&part)?;
            return Err(other_bytes(coordinate, expected, (&digest, size), path));
        }
        self.judge(want, coordinate, &part, digest, size)
    }

    fn download(&self, agent: &Agent, want: &Want, coordinate: &Coordinate, urls: &[String]) -> Result<Blob> {
        let part = self.part(want, coordinate);
        let file = coordinate.file_name();
        let expected = want.expected.as_ref().map(|(_, size)| *size);
        let mut last = String::new();
        for url in urls {
            let mut progress = Progress::open(&part)?;
            // Where no digest judges what comes out, nothing is put behind bytes that came from another server or in an
            // earlier run: of a file that was replaced meanwhile half would be locked, and half of the new one.
            if expected.is_none_or(|size| progress.size > size) {
                progress.restart()?;
            }
            for attempt in 0..ATTEMPTS {
                if attempt > 0 {
                    self.events.note(format!("{file}: {last}; asking again"));
                    // Half a second, then twice as long each time.
                    for _ in 0..(5u32 << (attempt - 1)) {
                        platform::check_cancelled()?;
                        std::thread::sleep(Duration::from_millis(100));
                    }
                }
                let result = http::download(agent, url, &mut progress, expected, &file, self.events);
                self.events.emit(Event::DownloadFinished { file: file.clone() });
                match result {
                    Ok(()) => {
                        let (digest, size) = (progress.digest(), progress.size);
                        drop(progress);
                        return self.judge(want, coordinate, &part, digest, size);
                    }
                    Err(Failure::Local(e)) => return Err(e),
                    Err(Failure::Refused(why)) => {
                        last = why;
                        break;
                    }
                    Err(Failure::Passing(why)) => last = why,
                }
            }
        }
        Err(Error::world("download", last))
    }

    /// Takes the file at `part` into the store, or aside if its digest is not the lock's.
    fn judge(&self, want: &Want, coordinate: &Coordinate, part: &Path, digest: String, size: u64) -> Result<Blob> {
        if let Some(expected) = want.expected.as_ref().filter(|(sha256, bytes)| *sha256 != digest || *bytes != size) {
            let aside = self
                .store
                .quarantine(part, &format!("{}-{}", &digest[..16], coordinate.file_name()))
                .doing(|| "keeping the wrong file aside".into())?;
            return Err(other_bytes(coordinate, expected, (&digest, size), &aside));
        }
        self.store.adopt(part, &digest)
    }
}

/// What came from `coordinate` is not what the lock says; it is `kept` there.
fn other_bytes(coordinate: &Coordinate, locked: &(String, u64), received: (&str, u64), kept: &Path) -> Error {
    let ((expected, expected_size), (digest, size)) = (locked, received);
    Error::world(
        Kind::Digest.code(),
        format!(
            "{coordinate} does not have the locked bytes:\n    locked    sha256:{expected}  {expected_size} bytes\n    received  sha256:{digest}  {size} bytes\n    kept in   {}",
            kept.display()
        ),
    )
    .next("do not use this file: find out why it differs (a mirror that was tampered with, a release that was replaced)")
    .next("if the new bytes are right, run `cargo xtask lock` and review the change")
}
