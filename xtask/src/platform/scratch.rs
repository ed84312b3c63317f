//! Folders that are needed only while somebody works in them, and how to tell whether somebody still does: its maker
//! holds a file in it locked, and the lock goes when the maker does, however that ends.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::imp;

/// The file that the maker of a folder holds.
pub const OWNER: &str = ".owner";
/// How the names of scratch folders begin, in the folder for temporary files.
const PREFIX: &str = "torchmill-scratch-";
/// What nobody locked for so long, its maker has left; on some file systems nothing can be locked.
const OLD: Duration = Duration::from_secs(86_400);

/// A folder below that for temporary files, which goes with this value; [`left`] finds it if this process is killed.
#[derive(Debug)]
pub struct Scratch {
    // Closed before the folder goes: some systems remove no file that is open.
    _owner: File,
    dir: tempfile::TempDir,
}

impl Scratch {
    /// Makes one, which nobody else may enter.
    ///
    /// # Errors
    /// No folder can be made there.
    pub fn new() -> io::Result<Self> {
        let dir = tempfile::Builder::new().prefix(PREFIX).tempdir()?;
        Ok(Self { _owner: hold(dir.path())?, dir })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

/// The scratch folders of this user that nobody holds any more.
pub fn left() -> Vec<PathBuf> {
    let all = std::fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten();
    let named = all.filter(|e| e.file_name().to_str().is_some_and(|n| n.starts_with(PREFIX)));
    // A link of this name is somebody's who wants what it leads to removed.
    let folders = named.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path());
    let mut left: Vec<PathBuf> = folders.filter(|path| imp::is_own(path) && !is_held(path)).collect();
    left.sort();
    left
}

/// Takes hold of a folder.
///
/// # Errors
/// The file cannot be made.
pub fn hold(dir: &Path) -> io::Result<File> {
    let fresh = dir.join(format!("{OWNER}.new"));
    let file = File::create(&fresh)?;
    // Where the file system knows no locks, age tells. It gets its name once it is locked: who looks for what was left
    // finds it held.
    let _ = file.try_lock();
    std::fs::rename(fresh, dir.join(OWNER))?;
    Ok(file)
}

/// Whether somebody holds a folder, or began it so shortly ago that it may not yet be held.
pub fn is_held(dir: &Path) -> bool {
    match File::options().read(true).write(true).open(dir.join(OWNER)) {
        Ok(file) => holds(&file, dir),
        Err(_) => !is_older(dir, OLD),
    }
}

/// Whether the `file` that was found in a folder says that somebody holds it. A maker that is done removes the file, lets
/// go of it, and gives the folder another name: who finds it free after that has not found a folder that was left.
fn holds(file: &File, dir: &Path) -> bool {
    file.try_lock().is_err() || !dir.join(OWNER).exists()
}

/// Whether nothing was changed at `path` for longer than `age`.
pub fn is_older(path: &Path, age: Duration) -> bool {
    let modified = std::fs::symlink_metadata(path).and_then(|m| m.modified());
    modified.is_ok_and(|m| SystemTime::now().duration_since(m).is_ok_and(|passed| passed > age))
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;

    /// On Windows a file that is removed while somebody has it open may keep its name until then.
    #[test]
    fn a_folder_whose_maker_is_done_with_it_is_not_taken_for_one_that_was_left() {
        let dir = tempfile::tempdir().unwrap();
        let find = || File::options().read(true).write(true).open(dir.path().join(OWNER)).unwrap();
        let owner = hold(dir.path()).unwrap();
        let found = find();
        assert!(holds(&found, dir.path()));
        // As a stage's result is finished, while somebody looks for what was left.
        std::fs::remove_file(dir.path().join(OWNER)).unwrap();
        drop(owner);
        assert!(holds(&found, dir.path()));
        assert!(is_held(dir.path()));
        // A maker that was killed removes nothing.
        drop(hold(dir.path()).unwrap());
        assert!(!holds(&find(), dir.path()));
        assert!(!is_held(dir.path()));
    }
}
