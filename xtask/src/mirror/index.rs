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
//! A project's `index.json` is the truth; everything else is rendered from it. Files come first, then the JSON
//! pages, each by one rename; then the HTML pages. Whoever reads sees a project's old page or the new one; what a killed
//! change was about to do, the next one does to its end, or undoes ([`change`]).

mod change;
mod identity;

use std::collections::{BTreeMap, HashMap};
use std::fs::TryLockError;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use pep440_rs::Version;
use serde::{Deserialize, Serialize};

pub use self::change::Change;
pub use self::identity::Identity;
use super::lock::IndexLock;
use super::page::{self, File, ProjectPage, RootPage, Tombstone, Yanked};
use super::wheel::{Wheel, sha256};
use crate::error::{Context, Error, Kind, Result};
use crate::event::{Silent, Sink};
use crate::platform;
use crate::store::{copy_digesting, lock_at};

/// Version of the format on disk.
const FORMAT: u32 = 1;
const MARKER: &str = "torchmill-index.json";
/// Bytes of it, at most.
const MOST_MARKER: u64 = 64 << 10;
const LOCK: &str = ".lock";
/// How long who waits for the lock waits before looking again.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(20);

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
    /// The wheel's file name.
    pub filename: String,
    /// SHA-256 of the file.
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
        // One that was begun and killed has nothing but folders of ours, and our lock.
        let ours = |name: &str| ["simple", "files"].contains(&name) && root.join(LOCK).exists();
        let mut there = std::fs::read_dir(root).into_iter().flatten().flatten().map(|e| e.file_name());
        if let Some(name) = there.find(|n| !n.to_string_lossy().starts_with('.') && !ours(&n.to_string_lossy())) {
            return Err(Error::misuse(
                "foreign-index",
                format!("{} holds '{}' and was not made by torchmill", root.display(), name.to_string_lossy()),
            )
            .next("name an empty folder: `mirror add` copies wheels into it and never changes what others made"));
        }
        let _lock = loop {
            fs_err::create_dir_all(root)?;
            match index.lock(&Silent) {
                // Another run, which had begun it and published nothing in it, took it away again.
                Err(_) if !root.exists() => platform::check_cancelled()?,
                locked => break locked?,
            }
        };
        if index.check_marker()? {
            return Ok(index);
        }
        fs_err::create_dir_all(root.join("simple"))?;
        fs_err::create_dir_all(root.join("files"))?;
        let marker =
            serde_json::to_vec(&Marker { torchmill_index: FORMAT }).map_err(|e| Error::world("json", e.to_string()))?;
        let mut change = Change::begin(root)?;
        change.writes(MARKER.into(), &marker)?;
        index.write_roots(&mut change, &[])?;
        change.commit(&Silent)?;
        Ok(index)
    }

    fn check_marker(&self) -> Result<bool> {
        if self.root.exists() && !self.root.is_dir() {
            let what = format!("{} is no folder", self.root.display());
            return Err(Error::misuse("no-index", what).next("name the folder of an index"));
        }
        let path = self.root.join(MARKER);
        let Ok(bytes) = platform::read_regular(&path, MOST_MARKER) else { return Ok(false) };
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

    /// Does something in the index at `root`, which is made where nothing is; and takes it away again if nothing was
    /// published in it.
    ///
    /// # Errors
    /// As [`Index::open_or_create`], and whatever `doing` meets.
    pub fn with_new<T>(root: &Path, doing: impl FnOnce(&Self) -> Result<T>) -> Result<T> {
        let is_new = !root.exists();
        let index = Self::open_or_create(root)?;
        let done = doing(&index);
        if is_new {
            index.abandon();
        }
        done
    }

    /// Removes an index that nobody published anything in, or is about to; what cannot be removed is an empty index.
    fn abandon(&self) {
        if let Ok(_lock) = self.lock(&Silent)
            && self.projects().is_ok_and(|projects| projects.is_empty())
            && !change::is_any(&self.root)
        {
            let _ = std::fs::remove_dir_all(&self.root);
        }
    }

    /// The folder that all of the index is in.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Normalized names of all projects.
    ///
    /// # Errors
    /// The world: the folder cannot be read.
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

    /// Whether a folder of the project is a link, which leads out of the index.
    pub fn leads_out(&self, name: &str) -> bool {
        self.page(name).is_symlink() || self.files(name).is_symlink()
    }

    /// The page of a project; an empty one where there is none yet.
    ///
    /// # Errors
    /// Bad input: its page is damaged. The world: it cannot be read.
    pub fn project(&self, name: &str) -> Result<Project> {
        let path = self.page(name).join("index.json");
        let damaged = |what: String| {
            Error::misuse("index", format!("{} is damaged: {what}", path.display()))
                .next("restore it from a copy; `mirror check` says what else is wrong")
        };
        if self.leads_out(name) {
            return Err(damaged("a folder of this project is a link, which leads out of the index".into()));
        }
        match platform::read_regular(&path, page::MOST_PAGE) {
            Ok(bytes) => {
                let page: Project = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
                // Its names become parts of paths: of what is read, and of what is removed.
                page.check(name).map_err(damaged)?;
                Ok(page)
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Project::new(name)),
            Err(e) if e.kind() == std::io::ErrorKind::FileTooLarge => Err(damaged(e.to_string())),
            Err(e) => Err(Error::world("io", format!("{}: {e}", path.display()))),
        }
    }

    /// Folder of a project's pages.
    pub fn page(&self, project: &str) -> PathBuf {
        self.root.join("simple").join(project)
    }

    /// Folder of a project's files.
    pub fn files(&self, project: &str) -> PathBuf {
        self.root.join("files").join(project)
    }

    /// Takes the index' lock: one writer at a time, on this machine and over a shared file system that
    /// knows locks. What killed writers left is put right at once.
    fn lock(&self, events: &dyn Sink) -> Result<std::fs::File> {
        let locked = lock_at(&self.root.join(LOCK), PAUSE, || {
            events.warn(format!("waiting for another change of {}", self.root.display()));
        });
        let file = match locked {
            Err(_) if !self.root.exists() => {
                let what = format!(
                    "{} is gone: another run, which had begun it and published nothing in it, took it away again",
                    self.root.display()
                );
                return Err(Error::world("index-gone", what).next("run the same command again"));
            }
            locked => locked?,
        };
        change::heal(&self.root)?;
        Ok(file)
    }

    /// What `read` finds while nobody changes the index: of a set that is being published all or nothing, also where
    /// whoever published it was killed. `read` must not change it, nor tell those who may.
    ///
    /// # Errors
    /// Whatever `read` meets. Bad input: a change was not made to its end, and the index may not be written to. The world:
    /// it cannot be locked.
    pub fn at_rest<T>(&self, read: impl FnOnce() -> Result<T>, events: &dyn Sink) -> Result<T> {
        let _lock = match self.lock(events) {
            // Who may only read puts nothing right, and keeps writers out all the same.
            Err(e) if e.kind() == Some(Kind::Permission) => self.lock_to_read(events)?,
            locked => Some(locked?),
        };
        read()
    }

    /// The lock for who may not write to the index; `None` where nobody ever did, as in a copy.
    fn lock_to_read(&self, events: &dyn Sink) -> Result<Option<std::fs::File>> {
        let path = self.root.join(LOCK);
        let lock = match platform::open_regular(&path, false) {
            Ok(lock) => Some(lock),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            Err(e) => return Err(Error::world("lock", format!("{} cannot be opened: {e}", path.display()))),
        };
        let mut told = false;
        while let Some(Err(TryLockError::WouldBlock)) = lock.as_ref().map(std::fs::File::try_lock_shared) {
            if !std::mem::replace(&mut told, true) {
                events.warn(format!("waiting for another change of {}", self.root.display()));
            }
            platform::check_cancelled()?;
            std::thread::sleep(PAUSE);
        }
        let Some(name) = change::undone(&self.root) else { return Ok(lock) };
        let what = format!("a change of {} was decided, and not made to its end ({name})", self.root.display());
        Err(Error::misuse("index", what)
            .next("the next change by who may write to it ends it: `mirror add` of a wheel that is there is enough"))
    }

    /// Begins a change: what killed ones left is put right first.
    ///
    /// # Errors
    /// The world: the index cannot be written to.
    pub fn begin(&self, events: &dyn Sink) -> Result<Change> {
        let _lock = self.lock(events)?;
        Change::begin(&self.root)
    }

    /// Publishes wheels: all of them, or none.
    ///
    /// # Errors
    /// Bad input: a name that is taken by other bytes. The world: no space.
    pub fn add(&self, wheels: &[Wheel], events: &dyn Sink) -> Result<Vec<Added>> {
        self.publish(wheels, &[], &|_| {}, events)
    }

    /// Publishes wheels as a lock states them: at their old times, yanked where they were, with all tombstones.
    ///
    /// # Errors
    /// As [`Index::add`].
    pub fn restore(&self, wheels: &[Wheel], lock: &IndexLock, events: &dyn Sink) -> Result<Vec<Added>> {
        let of = |name: &str| name.parse::<super::wheel::Name>().ok().map(|n| n.project);
        let projects: Vec<String> = lock.removed.keys().filter_map(|n| of(n)).collect();
        let edit = |page: &mut Project| {
            for file in &mut page.files {
                if let Some(locked) = lock.file.iter().find(|l| l.name == file.filename) {
                    file.yanked = locked.yank();
                    file.upload_time.clone_from(&locked.upload_time);
                }
            }
            let stones = lock.removed.iter().filter(|(n, _)| of(n).as_deref() == Some(&page.name));
            page.removed.extend(stones.map(|(n, s)| (n.clone(), s.clone())));
        };
        self.publish(wheels, &projects, &edit, events)
    }

    /// Publishes wheels; the pages of theirs and of `more` projects go through `edit`.
    fn publish(
        &self,
        wheels: &[Wheel],
        more: &[String],
        edit: &dyn Fn(&mut Project),
        events: &dyn Sink,
    ) -> Result<Vec<Added>> {
        let mut change = self.begin(events)?;
        // Copies take long and need no lock.
        let mut staged = Vec::new();
        for (at, wheel) in wheels.iter().enumerate() {
            platform::check_cancelled()?;
            staged.push(stage(&change, at, wheel)?);
        }
        let _lock = self.lock(events)?;
        let mut drafts: BTreeMap<String, Draft> = BTreeMap::new();
        for project in more {
            drafts.insert(project.clone(), Draft::of(self.project(project)?));
        }
        let mut added = Vec::new();
        let time = now();
        for (wheel, staged) in wheels.iter().zip(staged) {
            let project = wheel.name.project.clone();
            if !drafts.contains_key(&project) {
                drafts.insert(project.clone(), Draft::of(self.project(&project)?));
            }
            let Some(draft) = drafts.get_mut(&project) else { continue };
            let (filename, outcome) = draft.place(wheel, &staged.beside, &time)?;
            if outcome == Outcome::Published {
                for (from, name) in staged.files {
                    change.moves(&from, format!("files/{project}/{name}"));
                }
            }
            added.push(Added { filename, sha256: wheel.sha256.clone(), outcome });
        }
        let said: Vec<String> = drafts.values_mut().flat_map(|draft| std::mem::take(&mut draft.said)).collect();
        // Also where all was there: pages of an earlier version may look otherwise.
        let mut pages: Vec<Project> = drafts.into_values().map(Draft::finish).collect();
        pages.iter_mut().for_each(edit);
        self.write(&mut change, pages)?;
        change.commit(events)?;
        said.into_iter().for_each(|text| events.warn(text));
        Ok(added)
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
        let mut change = Change::begin(&self.root)?;
        self.write(&mut change, vec![page])?;
        change.commit(events)
    }

    /// Removes files, all or none. Their releases are taken for ever: only the same bytes may come back.
    ///
    /// # Errors
    /// Bad input: no such file.
    pub fn remove(&self, filenames: &[impl AsRef<str>], reason: &str, events: &dyn Sink) -> Result<()> {
        let named = || Ok(filenames.iter().map(AsRef::as_ref).collect::<Vec<&str>>());
        self.remove_chosen(named, reason, events).map(drop)
    }

    /// Removes the files that `choose` names while nobody else changes the index, and returns them.
    ///
    /// # Errors
    /// As [`Index::remove`], and whatever `choose` meets.
    pub fn remove_chosen<T: AsRef<str>>(
        &self,
        choose: impl FnOnce() -> Result<Vec<T>>,
        reason: &str,
        events: &dyn Sink,
    ) -> Result<Vec<T>> {
        let _lock = self.lock(events)?;
        let chosen = choose()?;
        let mut change = Change::begin(&self.root)?;
        let mut pages: BTreeMap<String, Project> = BTreeMap::new();
        for filename in chosen.iter().map(AsRef::as_ref) {
            let page = self.page_of(filename)?;
            let page = pages.entry(page.name.clone()).or_insert(page);
            let Some(at) = page.files.iter().position(|f| f.filename == filename) else { continue };
            let file = page.files.remove(at);
            let stone = Tombstone {
                sha256: file.hashes.get("sha256").cloned().unwrap_or_default(),
                reason: reason.to_owned(),
                time: now(),
            };
            page.removed.insert(filename.to_owned(), stone);
            page.versions = versions(&page.files);
            // The pages name it no more when it goes; who is downloading it goes on.
            let metadata = format!("{filename}.metadata");
            for name in [filename, &metadata].into_iter().chain(file.beside.keys().map(String::as_str)) {
                change.removes(format!("files/{}/{name}", page.name));
            }
        }
        self.write(&mut change, pages.into_values().collect())?;
        change.commit(events)?;
        Ok(chosen)
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
            return Err(e.next(format!("it was removed at {}: {}", stone.time, stone.reason.escape_debug())));
        }
        let near = crate::recipe::nearest(filename, page.files.iter().map(|f| f.filename.as_str()));
        Err(match near {
            Some(near) => e.next(format!("is '{near}' meant?")),
            None => e.next("name the whole file name, as the project's page shows it"),
        })
    }

    /// Finishes or undoes what killed changes left.
    ///
    /// # Errors
    /// The world: the index cannot be written to.
    pub fn heal(&self, events: &dyn Sink) -> Result<()> {
        self.lock(events).map(drop)
    }

    /// What killed changes left, by name.
    pub fn left_over(&self) -> Vec<String> {
        change::left_over(&self.root)
    }

    /// Pages, then what is rendered from all.
    fn write(&self, change: &mut Change, pages: Vec<Project>) -> Result<()> {
        for page in &pages {
            let json = serde_json::to_vec(page).map_err(|e| Error::world("json", e.to_string()))?;
            change.writes(format!("simple/{}/index.json", page.name), &json)?;
        }
        for page in &pages {
            change.writes(format!("simple/{}/index.html", page.name), page.html().as_bytes())?;
        }
        self.write_roots(change, &pages)
    }

    /// The page of the index and the start page. `known` are those that change.
    fn write_roots(&self, change: &mut Change, known: &[Project]) -> Result<()> {
        let mut names = self.projects()?;
        names.extend(known.iter().map(|p| p.name.clone()));
        names.sort();
        names.dedup();
        let root = RootPage::new(names.iter().cloned());
        let json = serde_json::to_vec(&root).map_err(|e| Error::world("json", e.to_string()))?;
        change.writes("simple/index.json".into(), &json)?;
        change.writes("simple/index.html".into(), root.html().as_bytes())?;
        let mut projects = Vec::new();
        for name in &names {
            projects.push(match known.iter().find(|p| p.name == *name) {
                Some(page) => page.clone(),
                None => self.project(name)?,
            });
        }
        change.writes("index.html".into(), page::start(&projects).as_bytes())
    }
}

/// A page that is being changed, and which releases are taken.
struct Draft {
    page: Project,
    taken: HashMap<Identity, Taken>,
    /// What whoever publishes may not expect.
    said: Vec<String>,
}

/// By what a release is taken.
enum Taken {
    /// A file of this name and SHA-256.
    Published(String, String),
    /// One of this name, which was removed.
    Removed(String),
}

impl Draft {
    fn of(page: Project) -> Self {
        let mut taken = HashMap::new();
        for name in page.removed.keys() {
            taken.extend(Identity::parse(name).map(|id| (id, Taken::Removed(name.clone()))));
        }
        for file in &page.files {
            let digest = file.hashes.get("sha256").cloned().unwrap_or_default();
            let by = Taken::Published(file.filename.clone(), digest);
            taken.extend(Identity::parse(&file.filename).map(|id| (id, by)));
        }
        Self { page, taken, said: Vec::new() }
    }

    /// Puts a wheel on the page, unless it is there; says under which name it is.
    fn place(&mut self, wheel: &Wheel, beside: &BTreeMap<String, String>, time: &str) -> Result<(String, Outcome)> {
        let filename = &wheel.filename;
        let id = Identity::of(&wheel.name)
            .ok_or_else(|| Error::misuse("filename", format!("'{}' is no version (PEP 440)", wheel.name.version)))?;
        match self.taken.get(&id) {
            Some(Taken::Published(there, old)) if *old == wheel.sha256 => {
                let old = self.page.files.iter().find(|f| f.filename == *there).map(|f| &f.beside);
                let new = beside.iter().find(|(name, sha256)| old.is_some_and(|old| old.get(*name) != Some(*sha256)));
                if let Some((name, _)) = new {
                    self.said.push(format!(
                        "'{name}' is not published: '{there}' is there, with what lay beside it then; to have both, \
                         `mirror remove` the wheel and add it again"
                    ));
                }
                return Ok((there.clone(), Outcome::AlreadyThere));
            }
            Some(Taken::Published(there, old)) => {
                return Err(taken(
                    Kind::Taken.code(),
                    format!(
                        "'{there}' is published with the SHA-256 {old}; {} has {}",
                        wheel.path.display(),
                        wheel.sha256
                    ),
                ));
            }
            Some(Taken::Removed(there)) => {
                if let Some(stone) = self.page.removed.get(there).filter(|s| s.sha256 != wheel.sha256) {
                    let (time, reason, sha256) = (&stone.time, stone.reason.escape_debug(), &stone.sha256);
                    return Err(taken(
                        Kind::Removed.code(),
                        format!(
                            "'{there}' was removed at {time} ({reason}): its name is never used again for other bytes \
                             than those with the SHA-256 {sha256}; {} has {}",
                            wheel.path.display(),
                            wheel.sha256
                        ),
                    ));
                }
                if let Some(stone) = self.page.removed.remove(there) {
                    let (time, reason) = (stone.time, stone.reason.escape_debug());
                    self.said.push(format!("'{filename}' comes back: it was removed at {time} ({reason})"));
                }
            }
            None => {}
        }
        self.taken.insert(id, Taken::Published(filename.clone(), wheel.sha256.clone()));
        self.page.files.push(entry(&self.page.name, wheel, beside, time));
        Ok((filename.clone(), Outcome::Published))
    }

    fn finish(mut self) -> Project {
        sort(&mut self.page.files);
        self.page.versions = versions(&self.page.files);
        self.page
    }
}

fn taken(code: &'static str, what: String) -> Error {
    Error::misuse(code, what)
        .next("a published file never changes: build with another version, local label or build number")
}

/// What the page of `project` says of a wheel that was published at `time`.
pub(super) fn entry(project: &str, wheel: &Wheel, beside: &BTreeMap<String, String>, time: &str) -> File {
    let hashes = |digest: &str| BTreeMap::from([("sha256".to_owned(), digest.to_owned())]);
    let metadata = hashes(&sha256(&wheel.metadata));
    File {
        filename: wheel.filename.clone(),
        url: format!("../../files/{project}/{}", wheel.filename.replace('+', "%2B")),
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
    }
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
    /// Where each waits, and its name; the wheel itself last: what is there is there with all that belongs to it.
    files: Vec<(String, String)>,
    /// SHA-256 of what was copied of the files that tell of its making.
    beside: BTreeMap<String, String>,
}

/// Copies a wheel, the `at`th of a set, and what belongs to it to the folder of a change.
fn stage(change: &Change, at: usize, wheel: &Wheel) -> Result<Staged> {
    let mut files = Vec::new();
    let mut waits = |name: String| {
        let from = format!("{at}-{}", files.len());
        files.push((from.clone(), name));
        change.place(&from)
    };
    write_synced(&waits(format!("{}.metadata", wheel.filename)), &wheel.metadata)?;
    let mut beside = BTreeMap::new();
    let same = |path: &Path, found: &str, judged: &str| {
        if found == judged {
            return Ok(());
        }
        Err(Error::world("changed", format!("{} changed while it was published", path.display()))
            .next("publish it again once nobody writes to it"))
    };
    for file in &wheel.beside {
        // Not through a link, which may lead to what nobody meant to publish.
        let found = copy(&file.path, false, &waits(file.name()))?;
        same(&file.path, &found, &file.sha256)?;
        beside.insert(file.name(), found);
    }
    let found = copy(&wheel.path, true, &waits(wheel.filename.clone()))?;
    same(&wheel.path, &found, &wheel.sha256)?;
    Ok(Staged { files, beside })
}

/// Copies a file, synced, and returns the SHA-256 of what was written.
fn copy(from: &Path, follow: bool, to: &Path) -> Result<String> {
    let mut out = BufWriter::with_capacity(1 << 20, fs_err::File::create(to)?);
    let mut file = open_regular(from, follow)?;
    let writing = || format!("writing {}", to.display());
    let (digest, _) = copy_digesting(&mut file, &mut out).doing(writing)?;
    out.flush().doing(writing)?;
    out.get_ref().sync_all()?;
    Ok(digest)
}

/// A regular file; what it is not is bad input.
fn open_regular(path: &Path, follow: bool) -> Result<std::fs::File> {
    platform::open_regular(path, follow).map_err(|e| {
        Error::misuse("no-file", format!("{} cannot be published: {e}", path.display()))
            .next("put the file itself there: no link, folder, pipe or device")
    })
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
    at(i64::try_from(since.as_secs()).unwrap_or(0), since.subsec_micros())
}

/// The same for people, to the minute: `2026-01-31 12:34 UTC`.
pub fn now_for_people() -> String {
    format!("{} UTC", now()[..16].replace('T', " "))
}

/// The time so many days ago, in the same form: times of this form sort as text.
pub fn days_ago(days: u32) -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    at(i64::try_from(since.as_secs()).unwrap_or(0) - i64::from(days) * 86_400, 0)
}

fn at(seconds: i64, micros: u32) -> String {
    let (y, m, d) = crate::artifact::civil_date(seconds.div_euclid(86_400));
    let of_day = seconds.rem_euclid(86_400);
    format!("{y:04}-{m:02}-{d:02}T{:02}:{:02}:{:02}.{micros:06}Z", of_day / 3600, of_day / 60 % 60, of_day % 60)
}

/// Whether `text` is a time of that form. What is called so and is none costs uv the whole page.
pub fn is_time(text: &str) -> bool {
    const FORM: &[u8] = b"0000-00-00T00:00:00.000000Z";
    let fits = |(is, form): (u8, &u8)| if *form == b'0' { is.is_ascii_digit() } else { is == *form };
    if text.len() != FORM.len() || !text.bytes().zip(FORM).all(fits) {
        return false;
    }
    let number = |from: usize, to: usize| text[from..to].parse::<u32>().unwrap_or(u32::MAX);
    let year = number(0, 4);
    let days = match number(5, 7) {
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => 0,
    };
    (1..=days).contains(&number(8, 10)) && number(11, 13) < 24 && number(14, 16) < 60 && number(17, 19) < 60
}

/// Whether two versions are the same, as PEP 440 understands them.
pub fn same_version(a: &str, b: &str) -> bool {
    matches!((Version::from_str(a), Version::from_str(b)), (Ok(a), Ok(b)) if a == b)
}

/// A project's name as a path segment of a request: normalized, or `None` for what is no name.
pub fn project_name(segment: &str) -> Option<String> {
    let fits = segment.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
        && !segment.is_empty()
        && !segment.starts_with('.');
    fits.then(|| crate::wheel::normalize(segment))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_that_somebody_is_about_to_publish_in_is_not_taken_away() {
        let dir = tempfile::tempdir().unwrap();
        let (root, other) = (dir.path().join("index"), dir.path().join("other"));
        let nothing = || Err::<(), _>(Error::misuse("no-wheel", "nothing came of it"));
        let mut change = None;
        let of_one = Index::with_new(&root, |index| {
            // Somebody else's, who copies wheels meanwhile.
            change = Some(index.begin(&Silent)?);
            nothing()
        });
        assert!(of_one.is_err() && change.is_some_and(|change| change.place(LOCK).parent().unwrap().exists()));
        assert!(Index::with_new(&other, |_| nothing()).is_err());
        // On Windows a folder stays as long as a file in it is open: that of the lock.
        assert!(cfg!(windows) || !other.exists());
    }

    #[test]
    fn who_may_only_read_sees_no_half_of_a_change() {
        let dir = tempfile::tempdir().unwrap();
        let index = Index::open_or_create(dir.path()).unwrap();
        // Of a copy on a disk that cannot be written to, too.
        fs_err::remove_file(dir.path().join(LOCK)).unwrap();
        assert!(index.lock_to_read(&Silent).unwrap().is_none());
        let change = index.begin(&Silent).unwrap();
        let reader = index.lock_to_read(&Silent).unwrap();
        assert!(fs_err::File::open(dir.path().join(LOCK)).unwrap().into_file().try_lock().is_err());
        drop(reader);
        // One that is being made is none; one that was decided by somebody who was killed is.
        let left = dir.path().join(".incoming-x");
        fs_err::create_dir(&left).unwrap();
        assert!(index.lock_to_read(&Silent).is_ok());
        for name in ["lock", "commit.json"] {
            fs_err::write(left.join(name), r#"{"moves":[],"gone":[]}"#).unwrap();
        }
        let refused = index.lock_to_read(&Silent).unwrap_err();
        assert!(refused.what().contains("(.incoming-x)"), "{refused}");
        index.at_rest(|| Ok(()), &Silent).unwrap();
        assert!(!left.exists() && index.lock_to_read(&Silent).is_ok());
        drop(change);
    }
}
