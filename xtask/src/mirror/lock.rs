//! What an index holds, written down so that it can be made again: every file by name and SHA-256, what is yanked and what
//! was removed. The bytes come from wherever they are found; the lock says which they are.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::index::{Added, Identity, Index, is_time};
use super::page::{Tombstone, Yanked};
use super::wheel::{Name, Wheel};
use crate::error::{Error, Kind, Result};
use crate::event::Sink;
use crate::source::{download_to, http_agent, pypi};
use crate::store::digest_file;

/// Version of the format.
const VERSION: u32 = 1;

/// The lock of an index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IndexLock {
    /// Version of the format; another one is refused.
    pub version: u32,
    /// Every published file, yanked ones included.
    #[serde(default)]
    pub file: Vec<LockedFile>,
    /// Every release that was removed.
    #[serde(default)]
    pub removed: BTreeMap<String, Tombstone>,
}

/// One published file, and what its page says of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedFile {
    /// File name.
    pub name: String,
    /// SHA-256, hexadecimal.
    pub sha256: String,
    /// Size of the file in bytes.
    pub size: u64,
    /// When it was published.
    pub upload_time: String,
    /// Why it is yanked, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub yanked: Option<String>,
    /// What tells of its making: file name → SHA-256.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub beside: BTreeMap<String, String>,
}

/// The lock of `index`, as it is while nobody changes it.
///
/// # Errors
/// As [`Index::at_rest`]; the index cannot be read. Bad input: no index could be made of what its pages say.
pub fn lock(index: &Index, events: &dyn Sink) -> Result<IndexLock> {
    let mut lock = IndexLock { version: VERSION, file: Vec::new(), removed: BTreeMap::new() };
    let pages = || index.projects()?.iter().map(|project| index.project(project)).collect::<Result<Vec<_>>>();
    for page in index.at_rest(pages, events)? {
        lock.removed.extend(page.removed);
        lock.file.extend(page.files.into_iter().map(|f| LockedFile {
            sha256: f.hashes.get("sha256").cloned().unwrap_or_default(),
            size: f.size,
            upload_time: f.upload_time,
            yanked: f.yanked.reason().map(str::to_owned),
            beside: f.beside,
            name: f.filename,
        }));
    }
    // Who needs it may have nothing else left: what is wrong is told while there is an index.
    lock.check().map_err(|what| {
        Error::misuse("index", format!("a page of {} is damaged: {what}", index.root().display()))
            .next("`mirror check` says what else is wrong")
    })?;
    Ok(lock)
}

impl IndexLock {
    /// As text.
    ///
    /// # Errors
    /// None that is known.
    pub fn render(&self) -> Result<String> {
        toml::to_string_pretty(self).map_err(|e| Error::world("toml", e.to_string()))
    }

    /// Reads a lock.
    ///
    /// # Errors
    /// Bad input: not such a file, a newer format, a digest that is none, a name that is none.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = |what: String| Error::misuse("index-lock", what);
        let lock: Self = toml::from_str(text).map_err(|e| bad(crate::platform::toml_error(text, &e)))?;
        if lock.version != VERSION {
            return Err(bad(format!("the lock says format {}, this torchmill knows {VERSION}", lock.version)));
        }
        lock.check().map_err(bad)?;
        Ok(lock)
    }

    /// Whether an index can be made of it.
    ///
    /// # Errors
    /// What keeps one from it, in a sentence.
    fn check(&self) -> Result<(), String> {
        let digest = |d: &str| d.len() == 64 && d.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'));
        for file in &self.file {
            file.name.parse::<Name>()?;
            // It goes to a page, and to terminals; and those of one form sort as text.
            if !is_time(&file.upload_time) {
                let (time, name) = (file.upload_time.escape_debug(), &file.name);
                return Err(format!("'{time}' of {name} is no time as `mirror lock` writes it (RFC 3339)"));
            }
            let digests = std::iter::once(&file.sha256).chain(file.beside.values());
            if let Some(d) = digests.into_iter().find(|d| !digest(d)) {
                return Err(format!("'{d}' of {} is no SHA-256: 64 hexadecimal digits, small letters", file.name));
            }
        }
        for (name, stone) in &self.removed {
            name.parse::<Name>()?;
            if !digest(&stone.sha256) {
                return Err(format!("'{}' of {name} is no SHA-256", stone.sha256));
            }
        }
        let mut releases: HashMap<Identity, &str> = HashMap::new();
        for name in self.file.iter().map(|file| &file.name).chain(self.removed.keys()) {
            let other = Identity::parse(name).and_then(|id| releases.insert(id, name));
            if let Some(other) = other {
                return Err(format!("'{other}' and '{name}' are one release: it stands there once, or was removed"));
            }
        }
        Ok(())
    }

    /// Makes the index again, in an empty one, from files in `places` (indexes, or folders with wheels) or else, by name and
    /// digest, from the package index that pip uses.
    ///
    /// # Errors
    /// Bad input: the index is not empty; what is found nowhere is named. The world: no network.
    pub fn make(&self, index: &Index, places: &[PathBuf], offline: bool, events: &dyn Sink) -> Result<Vec<Added>> {
        if !index.projects()?.is_empty() {
            return Err(Error::misuse("not-empty", format!("{} holds something already", index.root().display()))
                .next("name a folder that does not exist yet"));
        }
        let downloads = index.begin(events)?;
        let mut wheels = Vec::new();
        let mut missing = Vec::new();
        for file in &self.file {
            match find(file, places)?.map_or_else(|| download(file, &downloads, offline, events), |p| Ok(Some(p)))? {
                Some(path) => wheels.push(file.examine(&path)?),
                None => missing.push(file.name.as_str()),
            }
        }
        if !missing.is_empty() {
            let what =
                format!("{} of {} files are found nowhere: {}", missing.len(), self.file.len(), missing.join(", "));
            return Err(Error::misuse("missing", what).next("name the folders or indexes that have them with --from"));
        }
        index.restore(&wheels, self, events)
    }
}

impl LockedFile {
    /// The file at `path`, with what belongs to it.
    fn examine(&self, path: &Path) -> Result<Wheel> {
        let wheel = Wheel::examine(path)?;
        wheel.hold(std::slice::from_ref(&self.sha256))?;
        if let Some(name) = wheel.beside_differs(&self.beside) {
            let what = format!("{}: '{name}' beside it is not what the lock says", path.display());
            return Err(Error::misuse("beside", what).next("use the files that were published with it"));
        }
        Ok(wheel)
    }
}

/// The file in one of these places, by name and then by digest.
fn find(file: &LockedFile, places: &[PathBuf]) -> Result<Option<PathBuf>> {
    let project = file.name.parse::<Name>().map_err(|e| Error::misuse("index-lock", e))?.project;
    for place in places {
        for path in [place.join("files").join(&project).join(&file.name), place.join(&file.name)] {
            if path.is_file() && digest_file(&path)?.0 == file.sha256 {
                return Ok(Some(path));
            }
        }
    }
    Ok(None)
}

fn download(file: &LockedFile, to: &super::index::Change, offline: bool, events: &dyn Sink) -> Result<Option<PathBuf>> {
    if offline {
        return Ok(None);
    }
    let agent = http_agent();
    let project = file.name.parse::<Name>().map_err(|e| Error::misuse("index-lock", e))?.project;
    let files = match pypi::files(&agent, &project) {
        Ok(files) => files,
        // An index that does not answer is another thing than one that does not have it.
        Err(e) if e.kind() == Some(Kind::NoPackage) => return Ok(None),
        Err(e) => return Err(e),
    };
    let is = |f: &&pypi::IndexFile| f.filename == file.name && f.sha256.as_ref() == Some(&file.sha256);
    let Some(found) = files.iter().find(is) else { return Ok(None) };
    let path = to.place(&file.name);
    download_to(&agent, &found.url, &path, &file.sha256, events)?;
    Ok(Some(path))
}

impl LockedFile {
    /// The yank that the lock states.
    pub fn yank(&self) -> Yanked {
        self.yanked.clone().map_or_else(Yanked::default, Yanked::Reason)
    }
}
