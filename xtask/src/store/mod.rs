//! The content-addressed store: downloads by digest, stage results by key, work folders by key.
//!
//! ```text
//! STORE/
//!   blobs/<2>/<sha256>        downloads; a file stands here only if it has that digest
//!   parts/                    downloads under way, resumed by the next run
//!   quarantine/               files that did not have the digest they should have
//!   stages/<stage>/<key>/     finished results: `out/`, `files.json` (its digests), `stage.json` and `parts.json`,
//!                             the named inputs of the key; made by rename
//!   work/<stage>-<key>/       build folders, kept between runs so that a build resumes
//!   cache/                    compiler cache, git mirrors, timings
//!   inner/                    stores of closed rooms
//!   locks/                    one file a key: two builds of one thing wait for each other; `aside-…`, while one result
//!                             is set aside or removed; and `store`, which all who use the store hold together, and
//!                             whoever removes things from it alone
//! ```
//! Nothing here is secret or precious: deleting the folder costs time only. And nothing is believed for
//! standing here: blobs and results are hashed when they are used (`torchmill_bytes::listing`), and what of the caches is
//! run or decides something is held against a digest. Who can write here can have code run by whoever builds, so root
//! uses no store that others can write to.

mod digest;
mod key;
mod leftovers;
mod parts;
pub mod programs;
pub mod release;
mod sessions;

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use digest::{copy_digesting, digest_file, digest_reader, hash_reader};
pub use key::{Key, KeyBuilder};
pub use leftovers::sweep_beside;
pub use parts::{Part, Parts};
pub use sessions::Alone;
pub use torchmill_bytes::listing::{Extent, digest_now, spent as judging_spent};

use torchmill_bytes::digest::sha256;
use torchmill_bytes::listing::{Listing, says_what_stands_there};

use crate::error::{Context, Error, Result};
use crate::event::Sink;
use crate::platform::{self, scratch};
use crate::recipe::is_sha256;

/// Layout version of the store: another one gets another folder.
const LAYOUT: &str = "1";
/// Its folders that are there from the beginning.
const FOLDERS: [&str; 6] = ["blobs", "parts", "stages", "work", "cache", LOCKS];
/// The one that comes before all others.
const LOCKS: &str = "locks";

/// A store on disk: results by key, downloads by digest. Several processes may use one.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
    /// What was found changed, until somebody tells it.
    found: Arc<Mutex<Vec<String>>>,
    /// Keeps others from removing what is used; nothing where the store is only looked into.
    _use: Option<Arc<sessions::Use>>,
}

/// `stage.json`: the record of a result with its own digest, and the digest of `files.json` beside it. What a later
/// version writes there as well is not looked at: a result is no worse for it, and that version may be using it.
#[derive(Serialize, Deserialize)]
struct Finished {
    files_sha256: String,
    /// `None` in those of earlier versions.
    #[serde(default)]
    record_sha256: Option<String>,
    record: serde_json::Value,
}

impl Finished {
    /// Whether the record is what it was when it was written, as far as that can be told.
    fn holds(&self) -> bool {
        let text = self.record.to_string();
        self.record_sha256.as_ref().is_none_or(|digest| *digest == sha256(text.as_bytes()))
    }
}

/// Bytes whose digest is known and was checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blob {
    /// SHA-256, hexadecimal.
    pub sha256: String,
    /// Size in bytes.
    pub size: u64,
    /// Path of the file in the store.
    pub path: PathBuf,
}

impl Store {
    /// Opens (and makes) the store at `root`, or at the default place: `TORCHMILL_STORE`, else a
    /// folder in the user's cache folder. As long as it is open nobody removes anything from it.
    ///
    /// # Errors
    /// Bad input: nothing says where it is; others can write to it, and root is asked to believe it. The world: it
    /// cannot be written; somebody removes things from it.
    pub fn open(root: Option<&Path>) -> Result<Self> {
        Self::used(root, None)
    }

    /// The same; whoever removes things from it is waited for, and `events` are told of that.
    ///
    /// # Errors
    /// As [`Store::open`]. Somebody stopped the wait.
    pub fn open_for(root: Option<&Path>, events: &dyn Sink) -> Result<Self> {
        Self::used(root, Some(events))
    }

    /// The same for whoever removes things from it: [`Store::alone`] says when.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_unused(root: Option<&Path>) -> Result<Self> {
        let store = Self::begun(root)?;
        store.furnish()?;
        Ok(store)
    }

    fn used(root: Option<&Path>, events: Option<&dyn Sink>) -> Result<Self> {
        let store = Self::begun(root)?;
        let entered = sessions::enter(&store.root.join(LOCKS), events)?;
        let store = Self { _use: entered.map(Arc::new), ..store };
        store.furnish()?;
        Ok(store)
    }

    /// With nothing but locks: all else is made once nobody removes it.
    fn begun(root: Option<&Path>) -> Result<Self> {
        let root = Self::place(root).ok_or_else(|| {
            Error::misuse("no-store", "neither HOME nor a cache folder is set, so there is no place for the store")
                .next("name one: --store DIR or TORCHMILL_STORE=DIR")
        })?;
        if root.exists() && !root.is_dir() {
            return Err(Error::misuse("no-store", format!("the store {} is no folder", root.display()))
                .next("name a folder with --store DIR or TORCHMILL_STORE=DIR"));
        }
        fs_err::create_dir_all(&root).map_err(|e| unwritable(&root, &e))?;
        let root = std::path::absolute(&root).map_err(|e| unwritable(&root, &e))?;
        let store = Self { root: root.join(format!("v{LAYOUT}")), found: Arc::default(), _use: None };
        let locks = store.root.join(LOCKS);
        fs_err::create_dir_all(&locks).map_err(|e| unwritable(&root, &e))?;
        tempfile::tempfile_in(&locks).map_err(|e| unwritable(&root, &e))?;
        store.check_owner()?;
        Ok(store)
    }

    /// Makes what is not there of its folders.
    fn furnish(&self) -> Result<()> {
        let mut fresh = false;
        for dir in FOLDERS.map(|name| self.root.join(name)) {
            fresh |= !dir.is_dir();
            fs_err::create_dir_all(dir).map_err(|e| unwritable(&self.root, &e))?;
        }
        tempfile::tempfile_in(self.root.join("parts")).map_err(|e| unwritable(&self.root, &e))?;
        // What was made now may be others' to write to as well.
        if fresh { self.check_owner() } else { Ok(()) }
    }

    /// Takes it for whoever removes things from it: nobody uses it, and nobody begins to until what comes back goes.
    ///
    /// # Errors
    /// The world: somebody uses it, this very process by [`Store::open`] as well; the file system knows no locks.
    pub fn alone(&self) -> Result<Alone> {
        sessions::alone(&self.root)
    }

    /// The store at `root` or where [`Store::open`] looks for it, to be looked into; `None` where there is none. Nothing is
    /// made.
    ///
    /// # Errors
    /// Bad input: others can write to it, and root is asked to believe it.
    pub fn existing(root: Option<&Path>) -> Result<Option<Self>> {
        let Some(root) = Self::place(root).and_then(|root| std::path::absolute(root).ok()) else { return Ok(None) };
        let store = Self { root: root.join(format!("v{LAYOUT}")), found: Arc::default(), _use: None };
        if !store.root.is_dir() {
            return Ok(None);
        }
        store.check_owner()?;
        Ok(Some(store))
    }

    /// Where a store is, if nobody names another place.
    fn place(root: Option<&Path>) -> Option<PathBuf> {
        match (root, std::env::var_os("TORCHMILL_STORE")) {
            (Some(root), _) => Some(root.to_owned()),
            (None, Some(named)) if !named.is_empty() => Some(PathBuf::from(named)),
            _ => Some(platform::cache_dir()?.join("torchmill")),
        }
    }

    /// Root runs what is in its store, and writes to it by name; who else can write there would be root.
    fn check_owner(&self) -> Result<()> {
        if platform::is_root()
            && let Some(how) = self.shared()
        {
            return Err(Error::misuse(
                "store-shared",
                format!("the store {} can be written by others than root: {how}", self.root.display()),
            )
            .next("give it to root alone (chown -R root, chmod -R go-w), or name another one with --store"));
        }
        Ok(())
    }

    /// How others than this user can write here: owner and mode; `None` where they cannot.
    pub fn shared(&self) -> Option<String> {
        let mut folders = vec![self.root.clone()];
        folders.extend(FOLDERS.iter().chain(&["quarantine", "inner"]).map(|name| self.root.join(name)));
        // A result, a download, a build folder, a cache or a room that others can write to is theirs as well. Caches have
        // files where others have folders.
        for (of, depth) in [("stages", 2), ("work", 2), ("blobs", 1), ("cache", 2), ("inner", 2)] {
            let inside = walkdir::WalkDir::new(self.root.join(of)).min_depth(1).max_depth(depth).into_iter().flatten();
            let counts = |e: &walkdir::DirEntry| e.path().is_dir() || (of == "cache" && e.file_type().is_file());
            folders.extend(inside.filter(counts).map(walkdir::DirEntry::into_path));
        }
        platform::shared_with(&folders).or_else(|| platform::replaceable_by_others(self.root.parent()?))
    }

    /// What killed runs left, and nobody uses.
    pub fn leftovers(&self) -> Vec<PathBuf> {
        leftovers::find(&self.root)
    }

    /// Removes them, and what was left among temporary files. What cannot be removed stays for the next run.
    pub fn sweep(&self) {
        for path in self.leftovers().into_iter().chain(scratch::left()) {
            let _ = if path.is_dir() { remove_tree(&path) } else { std::fs::remove_file(&path).map_err(Into::into) };
        }
    }

    /// What was found changed, and set aside, since this was asked last.
    pub fn take_found(&self) -> Vec<String> {
        std::mem::take(&mut *self.found.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn say(&self, what: String) {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }

    /// The folder that all of the store is in.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Folder for data that is only ever a speed-up.
    pub fn cache(&self, name: &str) -> PathBuf {
        self.root.join("cache").join(name)
    }

    /// Those of these folders that there are and whose names begin so.
    pub fn caches(&self, prefix: &str) -> Vec<PathBuf> {
        let all = sessions::entries(&self.root.join("cache")).into_iter();
        all.filter(|path| sessions::begins_with(path, prefix) && path.is_dir()).collect()
    }

    /// Where a download with this digest is collected while it arrives.
    pub fn part(&self, name: &str) -> PathBuf {
        self.root.join("parts").join(name)
    }

    fn blob_path(&self, sha256: &str) -> PathBuf {
        self.root.join("blobs").join(&sha256[..2]).join(sha256)
    }

    /// The blob with this digest, if it is there and has it still; one that has not is set aside.
    ///
    /// # Errors
    /// The world: it cannot be read, so that nobody knows whether it has it. It stays where it is.
    pub fn blob(&self, sha256: &str, size: u64) -> Result<Option<Blob>> {
        if !is_sha256(sha256) {
            return Ok(None);
        }
        let path = self.blob_path(sha256);
        // `None`: nothing is there.
        let intact = || -> Result<Option<bool>> {
            let judge = || -> std::io::Result<bool> {
                let about = fs_err::symlink_metadata(&path)?;
                Ok(about.is_file() && about.len() == size && digest_now(&path)? == sha256)
            };
            match judge() {
                Ok(intact) => Ok(Some(intact)),
                Err(e) if says_what_stands_there(&e) => Ok(None),
                Err(e) => Err(unread(e.into(), &path)),
            }
        };
        match intact() {
            Ok(Some(true)) => return Ok(Some(Blob { sha256: sha256.to_owned(), size, path })),
            Ok(None) => return Ok(None),
            // What could not be read is read once more.
            Ok(Some(false)) | Err(_) => {}
        }
        // As a result, it is judged again before it is moved.
        let name = format!("{}-changed", &sha256[..16]);
        let alone = self.alone_with(&name);
        match intact()? {
            Some(true) => return Ok(Some(Blob { sha256: sha256.to_owned(), size, path })),
            Some(false) => {}
            None => return Ok(None),
        }
        let aside = alone.and_then(|_alone| self.quarantine(&path, &name));
        let whither = aside.map_or("it cannot be moved".into(), |to| format!("set aside as {}", to.display()));
        self.say(format!("{} has not the digest that it had when it came in: {whither}", path.display()));
        Ok(None)
    }

    /// Takes the file at `from` (on the store's file system) in as a blob. The caller has hashed it.
    ///
    /// # Errors
    /// The world: it cannot be moved there.
    pub fn adopt(&self, from: &Path, sha256: &str) -> Result<Blob> {
        let path = self.blob_path(sha256);
        let file = fs_err::File::open(from)?;
        let size = file.metadata()?.len();
        file.sync_all()?;
        drop(file);
        fs_err::create_dir_all(path.parent().unwrap_or(&self.root))?;
        platform::rename(from, &path)?;
        Ok(Blob { sha256: sha256.to_owned(), size, path })
    }

    /// Keeps a file with wrong bytes aside and returns where.
    ///
    /// # Errors
    /// The world: it cannot be moved there.
    pub fn quarantine(&self, from: &Path, name: &str) -> Result<PathBuf> {
        let dir = self.root.join("quarantine");
        fs_err::create_dir_all(&dir)?;
        let mut to = dir.join(name);
        let mut again = 1;
        while to.symlink_metadata().is_ok() {
            again += 1;
            to = dir.join(format!("{name}-{again}"));
        }
        platform::rename(from, &to)?;
        // It stays for a time that begins now, however old it is. Of what is neither file nor folder nothing is opened.
        if to.symlink_metadata().is_ok_and(|about| about.is_file() || about.is_dir()) {
            let _ = File::open(&to).and_then(|it| it.set_modified(std::time::SystemTime::now()));
        }
        Ok(to)
    }

    /// Whether a blob of this digest and size is there: for plans, which use nothing and so judge nothing.
    pub fn has_blob(&self, sha256: &str, size: u64) -> bool {
        is_sha256(sha256)
            && self.blob_path(sha256).symlink_metadata().is_ok_and(|about| about.is_file() && about.len() == size)
    }

    /// Folder of a stage's result, if it was made and is what it was then; one that is not is set aside.
    ///
    /// # Errors
    /// As [`Store::judged`].
    pub fn finished(&self, stage: &str, key: &Key) -> Result<Option<PathBuf>> {
        self.judged(stage, key, Extent::Whole)
    }

    /// The same, judged as far as `extent` says.
    ///
    /// # Errors
    /// The world: it cannot be read, so that nobody knows whether it is what it was. It is not used, and stays where it is.
    pub fn judged(&self, stage: &str, key: &Key, extent: Extent) -> Result<Option<PathBuf>> {
        let (dir, name) = (self.stage_dir(stage, key), format!("{stage}-{}", key.short()));
        let is_there = || stands(&dir.join("stage.json")).map_err(|e| unread(e, &dir));
        if !is_there()? {
            return Ok(None);
        }
        let is_sound = matches!(self.fault(&dir, extent, false), Ok(None));
        tracing::info!(target: "store", there = is_sound, "{stage} {}", key.short());
        if is_sound {
            return Ok(Some(dir.join("out")));
        }
        // Whoever judged it at the same time may have set it aside since, and made it anew, and be using it: what is moved
        // is what is judged while nobody else can move it. And what could not be read is read once more.
        let alone = self.alone_with(&name);
        if !is_there()? {
            return Ok(None);
        }
        let why = self.fault(&dir, extent, true).map_err(|e| unread(e, &dir))?;
        let Some(why) = why else { return Ok(Some(dir.join("out"))) };
        let aside = alone.and_then(|_alone| self.quarantine(&dir, &name));
        let whither = aside.map_or("it cannot be moved".into(), |to| format!("set aside as {}", to.display()));
        self.say(format!("the result of the stage '{stage}' is not what it was when it was made ({why}): {whither}"));
        Ok(None)
    }

    /// Where a stage's result stands once it was made.
    pub fn result(&self, stage: &str, key: &Key) -> PathBuf {
        self.stage_dir(stage, key).join("out")
    }

    /// Whether a stage's result was made: for plans, which use nothing.
    pub fn has(&self, stage: &str, key: &Key) -> Option<PathBuf> {
        let dir = self.stage_dir(stage, key);
        dir.join("stage.json").is_file().then(|| dir.join("out"))
    }

    /// In what a result is not what it was; `alone`, if nobody else sets it aside or gives it its digests meanwhile. An
    /// error says nothing of it.
    fn fault(&self, dir: &Path, extent: Extent, alone: bool) -> Result<Option<String>> {
        let is = |why: &str| Ok(Some(why.to_owned()));
        let Some(text) = read(&dir.join("stage.json"))? else { return is("stage.json cannot be read") };
        let out = dir.join("out");
        let Ok(finished) = serde_json::from_slice::<Finished>(&text) else {
            // Made before results had digests: then there is no list of files either. An emptied or cut record is no JSON,
            // and is made again.
            let old = !stands(&dir.join("files.json"))?;
            return match serde_json::from_slice::<serde_json::Value>(&text) {
                _ if !alone => is("stage.json has no digests"),
                Ok(record) if old && record.as_object().is_some_and(|r| !r.is_empty()) => {
                    self.adopt_old(dir, &record).map(|()| None)
                }
                _ => is("stage.json is no record"),
            };
        };
        let Some(files) = read(&dir.join("files.json"))? else { return is("files.json cannot be read") };
        if sha256(&files) != finished.files_sha256 {
            return is("files.json was changed");
        }
        if !finished.holds() {
            return is("the record in stage.json was changed");
        }
        let Some(listing) = Listing::of_json(&files) else { return is("files.json is no list of files") };
        let differs = listing.differs(&out, extent)?;
        if differs.is_none() && finished.record_sha256.is_none() {
            // Written before records had digests: from now on it is held against what it is.
            write_finished(dir, finished.files_sha256, finished.record)?;
        }
        Ok(differs)
    }

    /// Gives a result of an earlier version its digests: what it is now is what it is held against from now on.
    fn adopt_old(&self, dir: &Path, record: &serde_json::Value) -> Result<()> {
        self.say(format!("{} was made before results had digests: taken as it is, this once", dir.display()));
        seal(dir, record)
    }

    /// Removes a finished result.
    ///
    /// # Errors
    /// As [`Store::forget_if`].
    pub fn forget(&self, stage: &str, key: &Key) -> Result<()> {
        let _alone = self.alone_with(&format!("{stage}-{}", key.short()))?;
        remove_tree(&self.stage_dir(stage, key))
    }

    /// Removes a finished result that was found `useless`, if it is so still: whoever found it out at the same time may have
    /// made it anew, and be using it. Whether it is gone.
    ///
    /// # Errors
    /// The world: it cannot be locked or removed. Somebody stopped the wait.
    pub fn forget_if(&self, stage: &str, key: &Key, useless: impl FnOnce() -> bool) -> Result<bool> {
        let dir = self.stage_dir(stage, key);
        let _alone = self.alone_with(&format!("{stage}-{}", key.short()))?;
        if dir.join("stage.json").symlink_metadata().is_ok() {
            if !useless() {
                return Ok(false);
            }
            remove_tree(&dir)?;
        }
        Ok(true)
    }

    /// Waits until nobody else sets aside or removes what is called `name`, and keeps others from it until what comes back
    /// goes. It is another lock than that of [`Store::lock`], which whoever makes a result has while it is judged.
    fn alone_with(&self, name: &str) -> Result<StoreLock> {
        alone_at(&self.aside(name))
    }

    fn aside(&self, name: &str) -> PathBuf {
        self.root.join(LOCKS).join(format!("aside-{name}"))
    }

    fn stage_dir(&self, stage: &str, key: &Key) -> PathBuf {
        self.root.join("stages").join(stage).join(key.short())
    }

    /// What [`Pending::finish`] was told about a finished result; `None` if there is none, or what is there is no record.
    ///
    /// # Errors
    /// The world: it is there and cannot be read, which says nothing of the result.
    pub fn record<T: serde::de::DeserializeOwned>(&self, stage: &str, key: &Key) -> Result<Option<T>> {
        let Some(text) = read_if_there(&self.stage_dir(stage, key).join("stage.json"))? else { return Ok(None) };
        Ok(match serde_json::from_slice::<Finished>(&text) {
            Ok(finished) if finished.holds() => serde_json::from_value(finished.record).ok(),
            Ok(_) => None,
            Err(_) => serde_json::from_slice(&text).ok(),
        })
    }

    /// The inputs of all finished results of `stage`, the newest first. Results of a program that kept none are not
    /// among them.
    pub fn earlier(&self, stage: &str) -> Vec<Parts> {
        let folders = std::fs::read_dir(self.root.join("stages").join(stage)).into_iter().flatten().flatten();
        newest_first(folders.map(|folder| folder.path().join("parts.json")))
    }

    /// The same of what was done in the work folders of `stage`, from the files called `name`.
    pub fn earlier_work(&self, stage: &str, name: &str) -> Vec<Parts> {
        newest_first(self.works(stage).into_iter().map(|folder| folder.join(name)))
    }

    /// The work folders of `stage`.
    pub fn works(&self, stage: &str) -> Vec<PathBuf> {
        let folders = std::fs::read_dir(self.root.join("work")).into_iter().flatten().flatten();
        let prefix = format!("{stage}-");
        let own = folders.filter(|folder| folder.file_name().to_string_lossy().starts_with(&prefix));
        own.map(|folder| folder.path()).collect()
    }

    /// A fresh folder to make a stage's output in; [`Pending::finish`] turns it into the result.
    ///
    /// # Errors
    /// The world: no folder can be made.
    pub fn begin(&self, stage: &str, key: &Key) -> Result<Pending> {
        let parent = self.root.join("stages").join(stage);
        fs_err::create_dir_all(&parent)?;
        let dir = tempfile::Builder::new()
            .prefix(&format!(".{}-", key.short()))
            .tempdir_in(&parent)
            .doing(|| format!("making a folder in {}", parent.display()))?;
        let owner = scratch::hold(dir.path())?;
        fs_err::create_dir(dir.path().join("out"))?;
        let aside = self.aside(&format!("{stage}-{}", key.short()));
        Ok(Pending { dir, target: self.stage_dir(stage, key), aside, owner })
    }

    /// Where builds of `key` happen. What is there stays until `clean`, so that they resume.
    pub fn work(&self, stage: &str, key: &Key) -> PathBuf {
        self.root.join("work").join(format!("{stage}-{}", key.short()))
    }

    /// Takes the lock called `name`, waiting for whoever holds it.
    ///
    /// # Errors
    /// The world: it cannot be locked; or somebody stopped the wait.
    pub fn lock(&self, name: &str, events: &dyn Sink) -> Result<StoreLock> {
        let path = self.root.join(LOCKS).join(name);
        let mut file = fs_err::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
        lock_exclusively(file.file(), &path, Duration::from_millis(200), || {
            let mut holder = String::new();
            let _ = Read::read_to_string(&mut file.file(), &mut holder);
            events.warn(format!(
                "waiting for {}: it works on the same thing ({name})",
                if holder.trim().is_empty() { "another torchmill".to_owned() } else { holder.trim().to_owned() }
            ));
        })?;
        file.set_len(0)?;
        file.seek(std::io::SeekFrom::Start(0))?;
        writeln!(file, "process {}", std::process::id())?;
        file.flush()?;
        Ok(StoreLock { _file: file.into_file() })
    }
}

/// What is in the file at `path`, if there is one.
///
/// # Errors
/// The world: it is there and cannot be read. That is no sign that nothing was written there.
pub fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs_err::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Removes the file at `path`, if there is one.
///
/// # Errors
/// The world: it is still there.
pub fn remove_if_there(path: &Path) -> Result<()> {
    match fs_err::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e.into()),
        _ => Ok(()),
    }
}

/// Why the store below `root` is of no use.
fn unwritable(root: &Path, e: &std::io::Error) -> Error {
    Error::world("store-unwritable", format!("the store {} cannot be written: {e}", root.display()))
        .next("choose another folder with --store DIR or TORCHMILL_STORE=DIR")
}

/// What cannot be read is not used, and nobody knows whether it was changed: it stays where it is, and somebody is told.
fn unread(e: Error, what: &Path) -> Error {
    let what = what.display();
    e.doing(format!("judging {what}"))
        .next("nothing was moved: run the same command again")
        .next(format!("if that fails too, see to the disk and remove {what}: it is made or fetched anew"))
}

/// Whether something stands at `path`, if only a link to nothing.
fn stands(path: &Path) -> Result<bool> {
    match fs_err::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(e) if says_what_stands_there(&e) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// What the file at `path` holds; `None` where no file is, also where a folder is in its place, which is an error to
/// [`read_if_there`]: what is judged and is none is set aside.
fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs_err::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if says_what_stands_there(&e) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

/// Waits until nobody else sets aside or removes what the file at `path` stands for.
fn alone_at(path: &Path) -> Result<StoreLock> {
    Ok(StoreLock { _file: lock_at(path, Duration::from_millis(20), || {})? })
}

/// Opens the file at `path`, which is made if need be, and locks it, looking again after each `pause`; `waiting` is called
/// once if somebody else has it. Where it was removed while it was waited for, the one that stands there by now is locked.
///
/// # Errors
/// It cannot be opened; the file system knows no locks; the user stopped the wait.
pub fn lock_at(path: &Path, pause: Duration, waiting: impl FnOnce()) -> Result<File> {
    let mut waiting = Some(waiting);
    loop {
        let file = fs_err::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let file = file.into_file();
        lock_exclusively(&file, path, pause, || {
            if let Some(waiting) = waiting.take() {
                waiting();
            }
        })?;
        if platform::stands_at(&file, path) {
            return Ok(file);
        }
        platform::check_cancelled()?;
    }
}

/// The same of a file that is open already, and that nobody removes.
fn lock_exclusively(file: &File, path: &Path, pause: Duration, waiting: impl FnOnce()) -> Result<()> {
    let mut waiting = Some(waiting);
    while let Err(e) = file.try_lock() {
        if let std::fs::TryLockError::Error(e) = e {
            return Err(Error::world("lock", format!("cannot lock {}: {e}", path.display())));
        }
        if let Some(waiting) = waiting.take() {
            tracing::info!(target: "lock", "waiting for {}", path.display());
            waiting();
        }
        platform::check_cancelled()?;
        std::thread::sleep(pause);
    }
    Ok(())
}

/// A lock that is held until dropped (or the process dies).
#[derive(Debug)]
pub struct StoreLock {
    _file: File,
}

/// A stage result in the making. Dropped without [`Pending::finish`], it vanishes.
#[derive(Debug)]
pub struct Pending {
    dir: tempfile::TempDir,
    target: PathBuf,
    /// The lock of whoever sets aside or removes what stands at `target`.
    aside: PathBuf,
    /// Held locked as long as this is being made: what nobody holds, a killed run left.
    owner: File,
}

impl Pending {
    /// Where the output goes.
    pub fn out(&self) -> PathBuf {
        self.dir.path().join("out")
    }

    /// A scratch folder beside the output, on the same file system.
    ///
    /// # Errors
    /// The world: it cannot be made.
    pub fn scratch(&self) -> Result<PathBuf> {
        let dir = self.dir.path().join("scratch");
        fs_err::create_dir_all(&dir)?;
        Ok(dir)
    }

    /// Keeps the inputs that the result's key is made of beside it.
    ///
    /// # Errors
    /// The world: they cannot be written.
    pub fn note(&self, parts: &Parts) -> Result<()> {
        let text = serde_json::to_vec_pretty(parts).map_err(|e| Error::world("record", e.to_string()))?;
        write_atomically(&self.dir.path().join("parts.json"), &text)
    }

    /// Puts the output under its final name, with `record` beside it.
    ///
    /// # Errors
    /// The world: it cannot be hashed, written or renamed.
    pub fn finish<T: Serialize>(self, record: &T) -> Result<PathBuf> {
        let Self { dir, target, aside, owner } = self;
        let scratch = dir.path().join("scratch");
        if scratch.exists() {
            fs_err::remove_dir_all(&scratch)?;
        }
        seal(dir.path(), record)?;
        // What stands there still makes way. Whoever judges that at this moment would move what comes in its place.
        let _alone = if target.exists() { Some(alone_at(&aside)?) } else { None };
        if target.exists() {
            remove_tree(&target)?;
        }
        let dir = dir.keep();
        fs_err::remove_file(dir.join(scratch::OWNER))?;
        // Windows renames no folder in which a file is open.
        drop(owner);
        platform::rename(&dir, &target)?;
        // A temporary folder is private; a result is for everyone who may read the store.
        platform::make_traversable(&target)?;
        Ok(target.join("out"))
    }
}

/// What stands in these files, the youngest first.
fn newest_first(files: impl Iterator<Item = PathBuf>) -> Vec<Parts> {
    let mut found: Vec<_> = files
        .filter_map(|file| {
            let parts = serde_json::from_slice(&std::fs::read(&file).ok()?).ok()?;
            Some((std::fs::metadata(&file).and_then(|m| m.modified()).ok()?, parts))
        })
        .collect();
    found.sort_by_key(|(written, _)| std::cmp::Reverse(*written));
    found.into_iter().map(|(_, parts)| parts).collect()
}

/// Writes what a finished result in `dir` consists of: its files' digests, and the record that names their digest.
fn seal(dir: &Path, record: &impl Serialize) -> Result<()> {
    let json = |e: serde_json::Error| Error::world("record", e.to_string());
    let (files, files_sha256) = Listing::of(&dir.join("out"))?.to_json()?;
    write_atomically(&dir.join("files.json"), &files)?;
    write_finished(dir, files_sha256, serde_json::to_value(record).map_err(json)?)
}

fn write_finished(dir: &Path, files_sha256: String, mut record: serde_json::Value) -> Result<()> {
    let json = |e: serde_json::Error| Error::world("record", e.to_string());
    // As it will be read: a number may lose its last digit on the way.
    let mut text = record.to_string();
    for _ in 0..4 {
        record = serde_json::from_str(&text).map_err(json)?;
        let again = record.to_string();
        if again == text {
            break;
        }
        text = again;
    }
    let record_sha256 = Some(sha256(text.as_bytes()));
    let finished = Finished { files_sha256, record_sha256, record };
    write_atomically(&dir.join("stage.json"), &serde_json::to_vec_pretty(&finished).map_err(json)?)
}

/// Writes `bytes` to `path` so that readers see the old file or the new one: beside, fsync, rename.
///
/// # Errors
/// The world: it cannot be written; then `path` is as it was.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    fs_err::create_dir_all(dir)?;
    let mut file = tempfile::Builder::new()
        .prefix(".torchmill-")
        .tempfile_in(dir)
        .doing(|| format!("writing {}", path.display()))?;
    file.write_all(bytes).doing(|| format!("writing {}", path.display()))?;
    file.as_file().sync_all().doing(|| format!("writing {}", path.display()))?;
    platform::make_readable(file.as_file())?;
    platform::persist(file, path)
}

/// Bytes of all files below `dir`; none where there is no such folder.
pub fn size_of_tree(dir: &Path) -> u64 {
    let files = walkdir::WalkDir::new(dir).into_iter().flatten().filter_map(|e| e.metadata().ok());
    files.filter(std::fs::Metadata::is_file).map(|m| m.len()).sum()
}

/// Removes a folder even where a build made parts of it read-only, or of folders in folders without end. One that somebody
/// else removes meanwhile is gone.
///
/// # Errors
/// The world: something in it cannot be removed.
pub fn remove_tree(dir: &Path) -> Result<()> {
    let remove = || {
        // A link is removed as one, and nothing is done to what it leads to.
        if platform::is_own_folder(dir) {
            make_removable(dir);
        }
        fs_err::remove_dir_all(dir)
    };
    // Somebody else may be at it, or write to it: then it is tried once more.
    if remove().is_ok() || !dir.exists() {
        return Ok(());
    }
    match remove() {
        Err(e) if dir.exists() => Err(e.into()),
        _ => Ok(()),
    }
}

/// How deep folders below one that is removed may be, and how long a path, bytes: whoever removes one goes down into each
/// with an open file and a part of the stack for every level, and systems take no path of 4096 bytes (macOS: 1024), to which
/// one more name comes.
const DEEPEST: usize = 100;
const LONGEST: usize = 700;

/// Makes each folder in `dir` one that can be looked into and changed, and brings those that are too deep to its top. What
/// this cannot be done to is found out by whoever removes it.
fn make_removable(dir: &Path) {
    let (mut open, mut brought) = (vec![(dir.to_owned(), 0)], 0u64);
    while let Some((folder, depth)) = open.pop() {
        // Before it is looked into.
        let _ = platform::make_traversable(&folder);
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            let path = entry.path();
            if depth < DEEPEST && path.as_os_str().len() < LONGEST {
                open.push((path, depth + 1));
                continue;
            }
            // What gets another parent must be one's own to write to.
            let _ = platform::make_traversable(&path);
            let top = loop {
                let top = dir.join(format!(".torchmill-{brought}"));
                brought += 1;
                if top.symlink_metadata().is_err() {
                    break top;
                }
            };
            if std::fs::rename(&path, &top).is_ok() {
                open.push((top, 1));
            }
        }
    }
}

/// Removes a folder that others may write to at this moment, as a compiler cache is. It gets another name first: what they
/// write from then on is in a new one, and all that was in this one is out of everybody's reach.
///
/// # Errors
/// The world: it cannot be renamed.
pub fn remove_in_use(dir: &Path) -> Result<()> {
    let removing = || format!("removing {}", dir.display());
    let beside = dir.parent().unwrap_or(Path::new("."));
    let aside = tempfile::Builder::new().prefix(".torchmill-").tempdir_in(beside).doing(removing)?;
    let gone = aside.path().join("gone");
    match platform::rename(dir, &gone) {
        Ok(()) => {
            // What somebody is just writing there goes with what killed runs left.
            let _ = remove_tree(&gone);
            Ok(())
        }
        // Somebody else removed it meanwhile.
        Err(_) if !dir.exists() => Ok(()),
        Err(e) => Err(e.doing(removing())),
    }
}

/// Puts the folder `from` at `to`. Files at the top are copied, those below a folder are hard links
/// where they can be: `to` must get new files only, or give them new names.
///
/// # Errors
/// The world: a file can neither be linked nor copied.
pub fn share_tree(from: &Path, to: &Path) -> Result<()> {
    use rayon::prelude::*;
    let mut files = Vec::new();
    for entry in walkdir::WalkDir::new(from) {
        let entry = entry.map_err(|e| Error::world("io", e.to_string()))?;
        let target = to.join(entry.path().strip_prefix(from).unwrap_or(entry.path()));
        if entry.file_type().is_dir() {
            fs_err::create_dir_all(&target)?;
        } else if entry.file_type().is_symlink() {
            platform::symlink(&fs_err::read_link(entry.path())?, &target)?;
        } else {
            let top = entry.depth() == 1;
            files.push((entry.into_path(), target, top));
        }
    }
    files.par_iter().try_for_each(|(from, to, top)| -> Result<()> {
        if !top && std::fs::hard_link(from, to).is_ok() {
            return Ok(());
        }
        fs_err::copy(from, to)?;
        // ninja compares times: a copy is as old as what it was copied from.
        let modified = fs_err::metadata(from)?.modified()?;
        fs_err::OpenOptions::new().write(true).open(to)?.file().set_modified(modified)?;
        Ok(())
    })
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn who_waited_for_a_file_that_was_removed_waits_for_the_one_that_came_in_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let (path, pause) = (dir.path().join("lock"), Duration::from_millis(5));
        let waits = AtomicBool::new(false);
        let first = lock_at(&path, pause, || {}).unwrap();
        std::thread::scope(|scope| {
            let late = scope.spawn(|| lock_at(&path, pause, || waits.store(true, Ordering::SeqCst)).unwrap());
            while !waits.load(Ordering::SeqCst) {
                std::thread::sleep(pause);
            }
            std::fs::remove_file(&path).unwrap();
            let second = lock_at(&path, pause, || {}).unwrap();
            drop(first);
            std::thread::sleep(Duration::from_millis(200));
            assert!(!late.is_finished(), "two have a lock at one time");
            drop(second);
            assert!(platform::stands_at(&late.join().unwrap(), &path));
        });
    }

    #[test]
    fn a_folder_goes_also_where_nobody_may_look_into_those_below() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let room = dir.path().join("room");
        let folders = ["a/b/c", "a/b", "a"].map(|name| room.join(name));
        std::fs::create_dir_all(&folders[0]).unwrap();
        std::fs::write(folders[0].join("file"), "").unwrap();
        for folder in &folders {
            std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o000)).unwrap();
        }
        remove_tree(&room).unwrap();
        assert!(!room.exists());
    }

    #[test]
    fn a_folder_that_somebody_writes_to_meanwhile_goes_with_all_that_was_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join("shared-x");
        let done = AtomicBool::new(false);
        let removed = || -> Result<bool> {
            std::fs::create_dir_all(cache.join("0"))?;
            std::fs::write(cache.join("0/false"), "false")?;
            remove_in_use(&cache)?;
            Ok(!cache.join("0/false").exists())
        };
        let removed: Vec<Result<bool>> = std::thread::scope(|scope| {
            scope.spawn(|| {
                for i in 0..u32::MAX {
                    if done.load(Ordering::SeqCst) {
                        break;
                    }
                    let folder = cache.join((i % 2).to_string());
                    let _ = std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(folder.join("x"), "x"));
                }
            });
            let removed = (0..200).map(|_| removed()).collect();
            done.store(true, Ordering::SeqCst);
            removed
        });
        assert!(removed.into_iter().all(|gone| gone.unwrap()));
    }
}
