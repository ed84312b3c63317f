//! Who uses a store. Whoever opens one holds the file `store` of its locks, shared with all others who do, until the
//! process ends; whoever removes things from it holds that file alone, over the whole removal, and waits for nothing
//! meanwhile: no two of them can wait for each other.

use std::fs::{File, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::NamedTempFile;

use crate::error::{Error, Result};
use crate::event::Sink;
use crate::platform;
use crate::platform::scratch::is_older;

/// The file that is held, among the locks.
const HELD: &str = "store";
/// How the files beside it begin, one for each who holds it, that say who it is.
const USER: &str = "user-";
/// How long whoever removes things is waited for where nobody can be told of it.
const PATIENCE: Duration = Duration::from_secs(2);
/// Within that time whoever made such a file holds it.
const BEGUN: Duration = Duration::from_secs(60);
/// Who has not said who it is.
const UNNAMED: &str = "another torchmill";

/// A use of a store: nothing is removed from under it until this goes, or the process dies.
#[derive(Debug)]
pub(super) struct Use {
    _held: File,
    /// Says who it is; held by nobody else, and removed with this. Where it cannot be made, nobody is named.
    _user: Option<NamedTempFile>,
}

/// A removal from a store: nobody uses it, and nobody begins to until this goes.
#[derive(Debug)]
pub struct Alone {
    _held: Vec<File>,
}

/// What stands in a folder.
pub(super) fn entries(dir: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()).collect()
}

/// Whether the name of what stands at `path` begins so.
pub(super) fn begins_with(path: &Path, prefix: &str) -> bool {
    path.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with(prefix))
}

/// Begins to use the store of these `locks`. Whoever removes things from it is waited for, and `events` are told of
/// that; `None` where the file system knows no locks.
///
/// # Errors
/// The world: no file can be made there; nobody can be told, and it takes long. Somebody stopped the wait.
pub(super) fn enter(locks: &Path, events: Option<&dyn Sink>) -> Result<Option<Use>> {
    let path = locks.join(HELD);
    let begun = Instant::now();
    let mut told = false;
    loop {
        // A removal takes the locks of a closed room's store with the room.
        fs_err::create_dir_all(locks)?;
        let file = opened(&path)?;
        match file.try_lock_shared() {
            Ok(()) if platform::stands_at(&file, &path) => return Ok(Some(Use { _held: file, _user: user(locks) })),
            // It went with a room between the two lines above: nobody else will hold this one.
            Ok(()) => continue,
            Err(TryLockError::Error(_)) => return Ok(None),
            Err(TryLockError::WouldBlock) => {}
        }
        match events {
            Some(events) if !told => {
                events.warn(format!("waiting for {}: it removes things from the store", holder(&file)));
                told = true;
            }
            None if begun.elapsed() > PATIENCE => {
                return Err(Error::world(
                    "in-use",
                    format!(
                        "{} removes things from the store {}",
                        holder(&file),
                        locks.parent().unwrap_or(locks).display()
                    ),
                )
                .next("run this again when it is done"));
            }
            _ => {}
        }
        platform::check_cancelled()?;
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Takes the store at `root`, with those of the closed rooms inside, for whoever removes things from it.
///
/// # Errors
/// The world: somebody uses one of them; the file system knows no locks.
pub(super) fn alone(root: &Path) -> Result<Alone> {
    let in_use = |who: Option<String>| {
        let who = who.unwrap_or_else(|| "another torchmill is at work".to_owned());
        Error::world("in-use", format!("{who} in the store {}: nothing is removed", root.display()))
            .next("run this again when it is done; `cargo xtask clean --dry-run` shows what there is")
    };
    let rooms = entries(&root.join("inner")).into_iter().flat_map(|room| entries(&room)).map(|s| s.join("locks"));
    // Code of others writes in a room: where it left a link, a folder or what nobody may open nobody of ours holds
    // anything, and it keeps nobody from removing the room. Whoever started the room holds the store itself.
    let rooms = rooms.filter(|locks| platform::is_own_folder(locks) && opened(&locks.join(HELD)).is_ok());
    let all: Vec<PathBuf> = std::iter::once(root.join("locks")).filter(|locks| locks.is_dir()).chain(rooms).collect();
    let mut held = Vec::new();
    for locks in &all {
        let path = locks.join(HELD);
        let mut file = opened(&path)?;
        match file.try_lock() {
            Ok(()) if platform::stands_at(&file, &path) => {}
            // One that went with a room says nothing of who uses the room that is there now.
            Ok(()) | Err(TryLockError::WouldBlock) => return Err(in_use(who(locks))),
            Err(TryLockError::Error(e)) => {
                return Err(Error::world("lock", format!("cannot lock {}: {e}", path.display()))
                    .next("nobody can tell whether the store is in use: remove its folder yourself, if you know"));
            }
        }
        // For whoever waits. That it cannot be written leaves this without a name.
        let _ = file.set_len(0).and_then(|()| writeln!(file, "process {}", std::process::id()));
        held.push(file);
    }
    // Programs of before there was such a file hold what they work on.
    match all.iter().find_map(|locks| who(locks)) {
        Some(who) => Err(in_use(Some(who))),
        None => Ok(Alone { _held: held }),
    }
}

/// The files that said who holds a store, of those who were killed.
pub(super) fn left(locks: &Path) -> Vec<PathBuf> {
    let all = entries(locks).into_iter();
    all.filter(|path| begins_with(path, USER) && is_older(path, BEGUN) && !is_held(path)).collect()
}

/// Who works in the store of these `locks`, and on what; `None` where nobody says so.
fn who(locks: &Path) -> Option<String> {
    let is_file = |path: &PathBuf| path.symlink_metadata().is_ok_and(|about| about.is_file());
    let is_one = |path: &PathBuf| !path.ends_with(HELD) && !begins_with(path, ".") && is_file(path) && is_held(path);
    let held: Vec<PathBuf> = entries(locks).into_iter().filter(is_one).collect();
    // That somebody works on something says more than that somebody is there.
    let path = held.iter().find(|path| !begins_with(path, USER)).or(held.first())?;
    let holder = there(path).map_or_else(|_| UNNAMED.to_owned(), |file| holder(&file));
    Some(if begins_with(path, USER) {
        format!("{holder} is at work")
    } else {
        format!("{holder} works on {}", path.file_name().unwrap_or_default().to_string_lossy())
    })
}

/// Who holds `file`, as it said in there.
fn holder(file: &File) -> String {
    let mut said = String::new();
    let _ = Read::take(file, 200).read_to_string(&mut said);
    if said.trim().is_empty() { UNNAMED.to_owned() } else { said.trim().to_owned() }
}

/// Says who uses the store of these `locks`, for as long as the file is there.
fn user(locks: &Path) -> Option<NamedTempFile> {
    let mut file = tempfile::Builder::new().prefix(USER).tempfile_in(locks).ok()?;
    writeln!(file, "process {}", std::process::id()).ok()?;
    platform::make_readable(file.as_file()).ok()?;
    file.as_file().try_lock().ok()?;
    Some(file)
}

/// Whether somebody holds the file at `path`.
fn is_held(path: &Path) -> bool {
    there(path).is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
}

/// A file that is there. Where it is another user's, reading it is enough to see who holds it.
fn there(path: &Path) -> std::io::Result<File> {
    File::options().read(true).write(true).open(path).or_else(|_| File::open(path))
}

/// The file to hold, made if need be; over no link, which code of others may have put into a room.
fn opened(path: &Path) -> std::io::Result<File> {
    platform::open_or_make(path).or_else(|e| platform::open_regular(path, false).map_err(|_| e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Heard;

    #[test]
    fn many_use_a_store_at_once_and_whoever_removes_from_it_is_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (locks, heard) = (dir.path().join("locks"), Heard::default());
        let one = enter(&locks, None).unwrap().unwrap();
        let two = enter(&locks, Some(&heard)).unwrap().unwrap();
        let refused = alone(dir.path()).unwrap_err();
        assert_eq!(refused.code(), "in-use");
        assert!(refused.what().starts_with(&format!("process {} is at work", std::process::id())), "{refused}");
        drop(one);
        assert!(alone(dir.path()).is_err());
        drop(two);
        let removing = alone(dir.path()).unwrap();
        assert!(alone(dir.path()).is_err());
        assert_eq!(enter(&locks, None).unwrap_err().code(), "in-use");
        let said = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| enter(&locks, Some(&heard)).unwrap().is_some());
            let mut said = Vec::new();
            while said.is_empty() {
                std::thread::sleep(Duration::from_millis(5));
                said = heard.take_all();
            }
            drop(removing);
            assert!(waiting.join().unwrap());
            said
        });
        assert!(said[0].starts_with(&format!("waiting for process {}", std::process::id())));
        // Nobody is left, nor a file that says that somebody is.
        assert!(alone(dir.path()).is_ok());
        assert_eq!(entries(&locks), [locks.join(HELD)]);
    }

    #[test]
    #[cfg(unix)]
    fn a_file_that_went_with_its_room_is_not_held_in_place_of_the_one_that_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(HELD);
        let file = opened(&path).unwrap();
        assert!(platform::stands_at(&file, &path));
        // Whoever else writes to it makes it no other file.
        std::fs::write(&path, "process 1").unwrap();
        assert!(platform::stands_at(&file, &path));
        std::fs::remove_file(&path).unwrap();
        assert!(!platform::stands_at(&file, &path));
        let other = opened(&path).unwrap();
        assert!(!platform::stands_at(&file, &path) && platform::stands_at(&other, &path));
    }

    #[test]
    #[cfg(unix)]
    fn nothing_is_written_where_the_locks_of_a_closed_room_lead() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().unwrap();
        let (own, folder) = (dir.path().join("own"), dir.path().join("folder"));
        std::fs::create_dir(&folder).unwrap();
        for file in [&own, &folder.join(HELD)] {
            std::fs::write(file, "precious").unwrap();
        }
        let rooms = ["a", "b", "c", "d"].map(|name| dir.path().join("store/inner").join(name).join("v1"));
        for room in &rooms {
            std::fs::create_dir_all(room).unwrap();
        }
        std::fs::create_dir(rooms[0].join("locks")).unwrap();
        symlink(&own, rooms[0].join("locks").join(HELD)).unwrap();
        symlink(&folder, rooms[1].join("locks")).unwrap();
        // And what is no lock keeps nobody from removing the room.
        std::fs::create_dir_all(rooms[2].join("locks").join(HELD)).unwrap();
        std::fs::create_dir(rooms[3].join("locks")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(rooms[3].join("locks").join(HELD)).unwrap();
        drop(alone(&dir.path().join("store")).unwrap());
        assert!(opened(&rooms[0].join("locks").join(HELD)).is_err());
        for file in [&own, &folder.join(HELD)] {
            assert_eq!(std::fs::read_to_string(file).unwrap(), "precious");
        }
    }

    #[test]
    fn a_closed_room_that_is_in_use_is_not_removed_and_what_the_killed_said_of_themselves_is() {
        let dir = tempfile::tempdir().unwrap();
        let room = dir.path().join("inner/x/v1/locks");
        let used = enter(&room, None).unwrap();
        assert!(alone(dir.path()).is_err());
        drop(used);
        assert!(alone(dir.path()).is_ok());
        let old = std::time::SystemTime::now() - 2 * BEGUN;
        for (name, is_held) in [("user-held", true), ("user-left", false)] {
            let file = File::create(room.join(name)).unwrap();
            file.set_modified(old).unwrap();
            if is_held {
                file.lock().unwrap();
                std::mem::forget(file);
            }
        }
        File::create(room.join("user-young")).unwrap();
        assert_eq!(left(&room), [room.join("user-left")]);
    }
}
