//! A change of the index: all of it, or nothing, whenever it is killed.
//!
//! Everything new is written to a folder of the change's own, so that no space can be missing later. Then `commit.json` says
//! which file goes where and which ones go away: with it the change is made, without it nothing was. Whoever changes the
//! index next finishes what was committed and removes what was not. Whether a folder is in use says a lock in it, which
//! goes away with its process.

use std::fs::{File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};
use crate::event::Sink;
use crate::platform;
use crate::store::{remove_if_there, remove_tree, write_atomically};

/// Beginnings of the names of such folders, and of those that earlier versions made for uploads.
const PREFIXES: [&str; 2] = [PREFIX, ".upload-"];
const PREFIX: &str = ".incoming-";
const LOCK: &str = "lock";
const COMMIT: &str = "commit.json";
/// Bytes of the list of what a change does, at most.
const MOST_COMMIT: u64 = 1 << 30;
/// A folder without a lock that is older than this belongs to nobody.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);

/// What is done, in this order; paths are relative to the index, with `/`.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Commit {
    /// Name in the folder, and where it goes.
    moves: Vec<(String, String)>,
    gone: Vec<String>,
}

impl Commit {
    /// A path in it that leads out of its folder, or of the index.
    fn leads_out(&self) -> Option<&str> {
        let inside = |path: &str| {
            let mut parts = Path::new(path).components();
            !path.is_empty() && parts.all(|part| matches!(part, std::path::Component::Normal(_)))
        };
        let paths = self.moves.iter().flat_map(|(from, to)| [from, to]).chain(&self.gone);
        paths.map(String::as_str).find(|path| !inside(path))
    }

    /// An error if anything of it goes over a link, in its folder `dir` or in the index at `root`.
    fn check_ways(&self, root: &Path, dir: &Path) -> Result<()> {
        for (from, to) in &self.moves {
            check_way(dir, from)?;
            check_way(root, to)?;
        }
        self.gone.iter().try_for_each(|gone| check_way(root, gone))
    }
}

/// A change in the making. Dropped before it is committed, it leaves nothing.
#[derive(Debug)]
pub struct Change {
    root: PathBuf,
    dir: tempfile::TempDir,
    _lock: File,
    commit: Commit,
}

impl Change {
    /// Begins one in the index at `root`. The index must be locked while this is called: nobody may look at the folder
    /// before it has its lock.
    ///
    /// # Errors
    /// The world: the index cannot be written to.
    pub fn begin(root: &Path) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix(PREFIX)
            .tempdir_in(root)
            .doing(|| format!("writing to {}", root.display()))?;
        let lock = fs_err::File::create(dir.path().join(LOCK))?.into_file();
        // Whoever looks for leftovers may hold it for an instant. On a file system without locks a folder's age alone
        // says when it is given up.
        let _ = lock.lock();
        Ok(Self { root: root.to_owned(), dir, _lock: lock, commit: Commit::default() })
    }

    /// A place for what is to be moved, or for what only the change itself needs.
    pub fn place(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What was written to `place(from)` goes to `to` in the index.
    pub fn moves(&mut self, from: &str, to: String) {
        self.commit.moves.push((from.to_owned(), to));
    }

    /// `bytes` go to `to` in the index, unless they are there.
    ///
    /// # Errors
    /// The world: they cannot be written.
    pub fn writes(&mut self, to: String, bytes: &[u8]) -> Result<()> {
        if platform::read_regular(&self.root.join(&to), bytes.len() as u64).is_ok_and(|old| old == bytes) {
            return Ok(());
        }
        let name = format!("page-{}", self.commit.moves.len());
        let path = self.place(&name);
        let mut file = fs_err::File::create(&path)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        self.moves(&name, to);
        Ok(())
    }

    /// The file at `path` in the index goes away, after everything else.
    pub fn removes(&mut self, path: String) {
        self.commit.gone.push(path);
    }

    /// Makes the change. Without an error it is made, even where its last steps are left to whoever comes next.
    ///
    /// # Errors
    /// The world: nothing was changed.
    pub fn commit(self, events: &dyn Sink) -> Result<()> {
        if self.commit.moves.is_empty() && self.commit.gone.is_empty() {
            return Ok(());
        }
        self.commit.check_ways(&self.root, self.dir.path())?;
        for (from, _) in &self.commit.moves {
            platform::make_readable(fs_err::File::open(self.place(from))?.file())?;
        }
        // Folders first: making one may fail for want of space, a move within the file system will hardly.
        for (_, to) in &self.commit.moves {
            if let Some(parent) = self.root.join(to).parent() {
                fs_err::create_dir_all(parent)?;
            }
        }
        let text = serde_json::to_vec(&self.commit).map_err(|e| Error::world("json", e.to_string()))?;
        write_atomically(&self.place(COMMIT), &text)?;
        if let Err(e) = apply(&self.root, self.dir.path(), &self.commit) {
            events.warn(format!("published, but not all of it is in its place: {}; the next change goes on", e.what()));
            let _ = self.dir.keep();
        }
        Ok(())
    }
}

/// An error if the way from `top` down to `path` goes over a link: it leads out of the index.
fn check_way(top: &Path, path: &str) -> Result<()> {
    let mut way = top.to_owned();
    let mut parts = Path::new(path).components().peekable();
    while let Some(part) = parts.next() {
        way.push(part);
        // The last one is replaced or removed itself, whatever it is.
        if parts.peek().is_some() && way.is_symlink() {
            return Err(Error::misuse("index", format!("{} is a link: it leads out of the index", way.display()))
                .next("remove it, and see who can write to the index"));
        }
    }
    Ok(())
}

/// Does what `commit` says, as far as it was not done before.
fn apply(root: &Path, dir: &Path, commit: &Commit) -> Result<()> {
    let mut folders = std::collections::BTreeSet::new();
    for (from, to) in &commit.moves {
        let (from, to) = (dir.join(from), root.join(to));
        if from.exists() {
            platform::rename(&from, &to)?;
        }
        folders.extend(to.parent().map(Path::to_owned));
    }
    for folder in folders {
        platform::sync_folder(&folder)?;
    }
    for gone in &commit.gone {
        remove_if_there(&root.join(gone))?;
    }
    Ok(())
}

/// Folders of changes, by name: of those that are being made, and of those that were killed.
fn all(root: &Path) -> impl Iterator<Item = String> {
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    let names = entries.map(|e| e.file_name().to_string_lossy().into_owned());
    names.filter(|n| PREFIXES.iter().any(|p| n.starts_with(p)))
}

/// Whether somebody is at a change, or was killed at one.
pub fn is_any(root: &Path) -> bool {
    all(root).next().is_some()
}

/// Folders of changes that were killed, by name.
pub fn left_over(root: &Path) -> Vec<String> {
    let mut left: Vec<String> = all(root).filter(|n| is_left(&root.join(n))).collect();
    left.sort();
    left
}

/// A change that was decided by somebody who was killed before all of it was made, by name.
pub fn undone(root: &Path) -> Option<String> {
    left_over(root).into_iter().find(|name| root.join(name).join(COMMIT).is_file())
}

fn is_left(dir: &Path) -> bool {
    let old = || {
        let age = dir.metadata().and_then(|m| m.modified()).ok().and_then(|t| t.elapsed().ok());
        age.is_some_and(|a| a > ABANDONED)
    };
    match platform::open_regular(&dir.join(LOCK), false).map(|f| f.try_lock()) {
        Ok(Ok(())) => true,
        Ok(Err(TryLockError::WouldBlock)) => false,
        // Killed before it had its lock, which comes first: whoever makes such a folder holds the lock of the index.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && is_empty(dir) => true,
        _ => old(),
    }
}

fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none())
}

/// Finishes what was committed and removes what was not. The index must be locked.
///
/// # Errors
/// The world: the index cannot be written to.
pub fn heal(root: &Path) -> Result<()> {
    for name in left_over(root) {
        let dir = root.join(&name);
        // A commit.json that cannot be read was never whole: it is put in place by one rename.
        if let Ok(text) = platform::read_regular(&dir.join(COMMIT), MOST_COMMIT)
            && let Ok(commit) = serde_json::from_slice::<Commit>(&text)
        {
            if let Some(path) = commit.leads_out() {
                let what = format!("{} says to change '{}'", dir.join(COMMIT).display(), path.escape_debug());
                return Err(Error::misuse(
                    "index",
                    format!("{what}, which is outside of the index: not ours wrote it"),
                )
                .next("remove that folder, and see who can write to the index"));
            }
            commit.check_ways(root, &dir)?;
            apply(root, &dir, &commit)?;
        }
        // A change that is given up removes its folder itself, without a lock: both may be at it.
        remove_tree(&dir)?;
    }
    Ok(())
}
