//! The index on disk.
//!
//! ```text
//! DIR/
//!   torchmill-index.json          that this is ours, and of which format
//!   index.html                      start page for people
//!   simple/index.{html,json}        PEP 503, PEP 691
//!   simple/PROJECT/index.{html,json}
//!   files/PROJECT/WHEEL, WHEEL.metadata, what tells of its making
//! ```
//!
//! A project's `index.json` is the truth; everything else is rendered from it. Files come first, under
//! their final names only when they are whole; then the JSON page, by one rename; then the HTML pages.
//! Whoever reads sees the old index or the new one, and whoever is killed in between leaves at most
//! files that no page names, and HTML that the next change renders anew.

use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use pep440_rs::Version;
use serde::{Deserialize, Serialize};

use super::page::{self, File, ProjectPage, RootPage, Tombstone, Yanked};
use super::wheel::{Wheel, sha256};
use crate::error::{Context, Error, Kind, Result};
use crate::event::Sink;
use crate::platform;
use crate::store::{copy_digesting, lock_exclusively, write_atomically};

/// Version of the format on disk.
const FORMAT: u32 = 1;
const MARKER: &str = "torchmill-index.json";

#[derive(Debug, Serialize, Deserialize)]
struct Marker {
    torchmill_index: u32,
}

/// An index in a folder.
#[derive(Debug, Clone)]
pub struct Index {
    root: PathBuf,
}

/// A project of the index.
pub type Project = ProjectPage;

/// What became of one wheel.
#[derive(Debug, Clone, Serialize)]
pub struct Added {
    /// File name.
    pub filename: String,
    /// SHA-256.
    pub sha256: String,
    /// What was done.
    pub outcome: Outcome,
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It is published now.
    Published,
    /// The same bytes were published before.
    AlreadyThere,
}

impl Index {
    /// The index at `root`.
    ///
    /// # Errors
    /// Bad input: no index is there, or one of another tool or a newer format.
    pub fn open(root: &Path) -> Result<Self> {
        let index = Self { root: root.to_owned() };
        index.check_marker()?.then_some(index).ok_or_else(|| {
            Error::misuse("no-index", format!("{} is no index", root.display()))
                .next(format!("`cargo xtask mirror add --index {} WHEEL` makes one", root.display()))
        })
    }

    /// The index at `root`; an empty one is made where nothing is.
    ///
    /// # Errors
    /// Bad input: the folder belongs to something else.
    pub fn open_or_create(root: &Path) -> Result<Self> {
        let index = Self { root: root.to_owned() };
        if index.check_marker()? {
            return Ok(index);
        }
        let mut there = std::fs::read_dir(root).into_iter().flatten().flatten().map(|e| e.file_name());
        if let Some(name) = there.find(|n| !n.to_string_lossy().starts_with('.')) {
            return Err(Error::misuse(
                "foreign-index",
                format!("{} holds '{}' and was not made by torchmill", root.display(), name.to_string_lossy()),
            )
            .next("name an empty folder: `mirror add` copies wheels into it and never changes what others made"));
        }
        fs_err::create_dir_all(root.join("simple"))?;
        fs_err::create_dir_all(root.join("files"))?;
        let marker =
            serde_json::to_vec(&Marker { torchmill_index: FORMAT }).map_err(|e| Error::world("json", e.to_string()))?;
        write_atomically(&root.join(MARKER), &marker)?;
        index.write_roots(&[])?;
        Ok(index)
    }

    fn check_marker(&self) -> Result<bool> {
        let path = self.root.join(MARKER);
        let Ok(bytes) = std::fs::read(&path) else { return Ok(false) };
        let marker: Marker = serde_json::from_slice(&bytes)
            .map_err(|e| Error::misuse("index", format!("{} is damaged: {e}", path.display())))?;
        if marker.torchmill_index > FORMAT {
            return Err(Error::misuse(
                "index",
                format!("{} says format {}, this torchmill knows {FORMAT}", path.display(), marker.torchmill_index),
            )
            .next("use the torchmill that made it, or a newer one"));
        }
        Ok(true)
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Normalized names of all projects.
    pub fn projects(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs_err::read_dir(self.root.join("simple"))? {
            let entry = entry?;
            if entry.path().join("index.json").is_file() {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    /// The page of a project; an empty one where there is none yet.
    pub fn project(&self, name: &str) -> Result<Project> {
        let path = self.page(name).join("index.json");
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| {
                Error::misuse("index", format!("{} is damaged: {e}", path.display()))
                    .next("restore it from a copy; `mirror check` says what else is wrong")
            }),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Project::new(name)),
            Err(e) => Err(Error::world("io", format!("{}: {e}", path.display()))),
        }
    }

    fn page(&self, project: &str) -> PathBuf {
        self.root.join("simple").join(project)
    }

    /// Folder of a project's files.
    pub fn files(&self, project: &str) -> PathBuf {
        self.root.join("files").join(project)
    }

    /// Takes the index' lock: one writer at a time, on this machine and over a shared file system that
    /// knows locks.
    fn lock(&self, events: &dyn Sink) -> Result<std::fs::File> {
        let path = self.root.join(".lock");
        let file =
            fs_err::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?.into_file();
        lock_exclusively(&file, &path, std::time::Duration::from_millis(20), || {
            events.warn(format!("waiting for another change of {}", self.root.display()));
        })?;
        Ok(file)
    }

    /// Publishes wheels: all of them, or none.
    ///
    /// # Errors
    /// Bad input: a name that is taken by other bytes, or was removed. The world: no space.
    pub fn add(&self, wheels: &[Wheel], events: &dyn Sink) -> Result<Vec<Added>> {
        // Copies take long and need no lock.
        let mut staged = Vec::new();
        for wheel in wheels {
            platform::check_cancelled()?;
            staged.push(self.stage(wheel)?);
        }
        let _lock = self.lock(events)?;
        let mut pages: BTreeMap<String, Project> = BTreeMap::new();
        let mut added = Vec::new();
        let time = now();
        let mut settling = Vec::new();
        for (wheel, staged) in wheels.iter().zip(staged) {
            let project = wheel.name.project.clone();
            if !pages.contains_key(&project) {
                pages.insert(project.clone(), self.project(&project)?);
            }
            let Some(page) = pages.get_mut(&project) else { continue };
            let outcome = place(page, wheel, &staged.beside, &time)?;
            if outcome == Outcome::Published {
                settling.push((staged, self.files(&project)));
            }
            added.push(Added { filename: wheel.filename.clone(), sha256: wheel.sha256.clone(), outcome });
        }
        // Only when none of the set was refused.
        for (staged, folder) in settling {
            staged.settle(&folder)?;
        }
        // Also where all was there: whoever was killed in between left HTML that is older than its JSON.
        self.write(pages.into_values().collect())?;
        Ok(added)
    }

    /// Copies a wheel and what belongs to it to a hidden folder beside its final place.
    fn stage(&self, wheel: &Wheel) -> Result<Staged> {
        let parent = self.files(&wheel.name.project);
        fs_err::create_dir_all(&parent)?;
        let dir = tempfile::Builder::new()
            .prefix(".incoming-")
            .tempdir_in(&parent)
            .doing(|| format!("writing to {}", parent.display()))?;
        let found = copy(&wheel.path, &dir.path().join(&wheel.filename))?;
        if found != wheel.sha256 {
            return Err(Error::world("changed", format!("{} changed while it was published", wheel.path.display()))
                .next("publish it again once nobody writes to it"));
        }
        let mut names = vec![format!("{}.metadata", wheel.filename)];
        write_synced(&dir.path().join(&names[0]), &wheel.metadata)?;
        let mut beside = BTreeMap::new();
        for path in &wheel.beside {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            beside.insert(name.clone(), copy(path, &dir.path().join(&name))?);
            names.push(name);
        }
        // The wheel itself last: what is there is there with all that belongs to it.
        names.push(wheel.filename.clone());
        Ok(Staged { dir, names, beside })
    }

    /// Marks a file as yanked (PEP 592): installers leave it out unless it is asked for exactly.
    ///
    /// # Errors
    /// Bad input: no such file.
    pub fn yank(&self, filename: &str, reason: Option<&str>, events: &dyn Sink) -> Result<()> {
        self.change(filename, events, |file| {
            file.yanked = Yanked::Reason(reason.unwrap_or_default().to_owned());
        })
    }

    /// Takes a yank back.
    ///
    /// # Errors
    /// Bad input: no such file.
    pub fn unyank(&self, filename: &str, events: &dyn Sink) -> Result<()> {
        self.change(filename, events, |file| file.yanked = Yanked::default())
    }

    fn change(&self, filename: &str, events: &dyn Sink, change: impl FnOnce(&mut File)) -> Result<()> {
        let _lock = self.lock(events)?;
        let mut page = self.page_of(filename)?;
        if let Some(file) = page.files.iter_mut().find(|f| f.filename == filename) {
            change(file);
        }
        self.write(vec![page])
    }

    /// Removes a file. Its name stays taken for ever.
    ///
    /// # Errors
    /// Bad input: no such file.
    pub fn remove(&self, filename: &str, reason: &str, events: &dyn Sink) -> Result<()> {
        let _lock = self.lock(events)?;
        let mut page = self.page_of(filename)?;
        let Some(at) = page.files.iter().position(|f| f.filename == filename) else { return Ok(()) };
        let file = page.files.remove(at);
        let stone = Tombstone {
            sha256: file.hashes.get("sha256").cloned().unwrap_or_default(),
            reason: reason.to_owned(),
            time: now(),
        };
        page.removed.insert(filename.to_owned(), stone);
        page.versions = versions(&page.files);
        let folder = self.files(&page.name);
        self.write(vec![page])?;
        // The pages name it no more; who is downloading it goes on.
        let mut gone = vec![folder.join(filename), folder.join(format!("{filename}.metadata"))];
        gone.extend(file.beside.keys().map(|n| folder.join(n)));
        for path in gone {
            if let Err(e) = fs_err::remove_file(&path)
                && e.kind() != std::io::ErrorKind::NotFound
            {
                return Err(e.into());
            }
        }
        Ok(())
    }

    /// The page with a file of this name.
    fn page_of(&self, filename: &str) -> Result<Project> {
        let name = filename.parse::<super::wheel::Name>().map_err(|e| Error::misuse("filename", e))?;
        let page = self.project(&name.project)?;
        if page.files.iter().any(|f| f.filename == filename) {
            return Ok(page);
        }
        let e = Error::misuse("not-published", format!("the index has no file '{filename}'"));
        if let Some(stone) = page.removed.get(filename) {
            return Err(e.next(format!("it was removed at {}: {}", stone.time, stone.reason)));
        }
        let near = crate::recipe::nearest(filename, page.files.iter().map(|f| f.filename.as_str()));
        Err(match near {
            Some(near) => e.next(format!("is '{near}' meant?")),
            None => e.next("name the whole file name, as the project's page shows it"),
        })
    }

    /// Writes pages, then what is rendered from all.
    fn write(&self, pages: Vec<Project>) -> Result<()> {
        for page in &pages {
            let folder = self.page(&page.name);
            let json = serde_json::to_vec(page).map_err(|e| Error::world("json", e.to_string()))?;
            put(&folder.join("index.json"), &json)?;
            put(&folder.join("index.html"), page.html().as_bytes())?;
        }
        self.write_roots(&pages)
    }

    /// The page of the index and the start page. `known` need not be read again.
    fn write_roots(&self, known: &[Project]) -> Result<()> {
        let names = self.projects()?;
        let root = RootPage::new(names.iter().cloned());
        let json = serde_json::to_vec(&root).map_err(|e| Error::world("json", e.to_string()))?;
        put(&self.root.join("simple/index.json"), &json)?;
        put(&self.root.join("simple/index.html"), root.html().as_bytes())?;
        let mut projects = Vec::new();
        for name in &names {
            projects.push(match known.iter().find(|p| p.name == *name) {
                Some(page) => page.clone(),
                None => self.project(name)?,
            });
        }
        put(&self.root.join("index.html"), page::start(&projects).as_bytes())
    }
}

/// Writes a page, unless it is what is there.
fn put(path: &Path, bytes: &[u8]) -> Result<()> {
    if std::fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    write_atomically(path, bytes)
}

/// Puts a wheel on the page, unless it is there.
fn place(page: &mut Project, wheel: &Wheel, beside: &BTreeMap<String, String>, time: &str) -> Result<Outcome> {
    let filename = &wheel.filename;
    if let Some(there) = page.files.iter().find(|f| f.filename == *filename) {
        let old = there.hashes.get("sha256").map_or("", String::as_str);
        if old == wheel.sha256 {
            return Ok(Outcome::AlreadyThere);
        }
        return Err(Error::misuse(
            Kind::Taken.code(),
            format!("'{filename}' is published with the SHA-256 {old}; {} has {}", wheel.path.display(), wheel.sha256),
        )
        .next("a published file never changes: build with another version, local label or build number"));
    }
    if let Some(stone) = page.removed.get(filename) {
        return Err(Error::misuse(
            Kind::Removed.code(),
            format!("'{filename}' was removed at {} ({}): its name is never used again", stone.time, stone.reason),
        )
        .next("build with another version, local label or build number"));
    }
    let hashes = |digest: &str| BTreeMap::from([("sha256".to_owned(), digest.to_owned())]);
    let metadata = hashes(&sha256(&wheel.metadata));
    page.files.push(File {
        filename: filename.clone(),
        url: format!("../../files/{}/{}", page.name, filename.replace('+', "%2B")),
        hashes: hashes(&wheel.sha256),
        requires_python: wheel.requires_python.clone(),
        size: wheel.size,
        upload_time: time.to_owned(),
        yanked: Yanked::default(),
        core_metadata: metadata.clone(),
        dist_info_metadata: metadata,
        version: wheel.name.version.clone(),
        about: wheel.about.clone(),
        beside: beside.clone(),
    });
    sort(&mut page.files);
    page.versions = versions(&page.files);
    Ok(Outcome::Published)
}

/// By version, then name.
fn sort(files: &mut [File]) {
    files.sort_by_cached_key(|f| (Version::from_str(&f.version).ok(), f.filename.clone()));
}

fn versions(files: &[File]) -> Vec<String> {
    let mut versions: Vec<String> = files.iter().map(|f| f.version.clone()).collect();
    versions.dedup();
    versions
}

/// Files that wait, whole, for their final names.
struct Staged {
    dir: tempfile::TempDir,
    names: Vec<String>,
    /// SHA-256 of what was copied of the files that tell of its making.
    beside: BTreeMap<String, String>,
}

impl Staged {
    fn settle(self, folder: &Path) -> Result<()> {
        for name in &self.names {
            let target = folder.join(name);
            platform::rename(self.dir.path().join(name), &target)?;
            platform::make_readable(fs_err::File::open(&target)?.file())?;
        }
        // The names are on disk before a page speaks of them.
        fs_err::File::open(folder)?.sync_all()?;
        Ok(())
    }
}

/// Copies a file, synced, and returns the SHA-256 of what was written.
fn copy(from: &Path, to: &Path) -> Result<String> {
    let mut out = BufWriter::with_capacity(1 << 20, fs_err::File::create(to)?);
    let writing = || format!("writing {}", to.display());
    let (digest, _) = copy_digesting(&mut fs_err::File::open(from)?, &mut out).doing(writing)?;
    out.flush().doing(writing)?;
    out.get_ref().sync_all()?;
    Ok(digest)
}

fn write_synced(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = fs_err::File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    Ok(())
}

/// UTC as PEP 700 has it: `2026-01-31T12:34:56.000000Z`.
pub fn now() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(since.as_secs()).unwrap_or(0);
    let (y, m, d) = crate::artifact::civil_date(seconds.div_euclid(86_400));
    let of_day = seconds.rem_euclid(86_400);
    format!(
        "{y:04}-{m:02}-{d:02}T{:02}:{:02}:{:02}.{:06}Z",
        of_day / 3600,
        of_day / 60 % 60,
        of_day % 60,
        since.subsec_micros()
    )
}

/// A project's name as a path segment of a request: normalized, or `None` for what is no name.
pub fn project_name(segment: &str) -> Option<String> {
    let fits = segment.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
        && !segment.is_empty()
        && !segment.starts_with('.');
    fits.then(|| crate::wheel::normalize(segment))
}
