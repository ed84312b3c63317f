//! All that differs between operating systems, behind one small interface: process groups,
//! cutting the network off, memory, disk space, modes. The only place where `unsafe` is allowed.

#[cfg(unix)]
mod unix;
#[cfg(unix)]
use unix as imp;
#[cfg(target_os = "linux")]
mod closed;
mod door;
mod program;
pub mod scratch;
mod secrets;
#[cfg(windows)]
mod windows;
#[cfg(windows)]
use windows as imp;

use std::ffi::OsString;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub use imp::{
    FileId, available_memory, bound_unsent, change_owner, cpu_seconds, die_of_broken_pipes, die_with_parent,
    enter_variation, exec, exec_as, file_id, free_space, hiding_supported, is_executable, is_root, keep_alive,
    kill_tree, make_readable, make_traversable, mark_executable, memory_file, new_process_group, new_session,
    open_or_make, open_regular, other_user, outlive_terminal, own_variables, peak_memory, raise_open_files, read_at,
    read_at_once, remove_link, replaceable_by_others, run_measured, sandbox_exec, sandbox_supported, send_more,
    send_of, set_umask, shared_with, stamp, stands_at, symlink, sync_folder, system_programs, this_user, use_cores,
};

use crate::error::{Error, Result};

#[cfg(target_os = "linux")]
pub use closed::{CLOSED_COMMAND, Room, enter as enter_room, no_dumps, supported as room_supported};
pub use door::{Door, Visitor};
pub use program::{own_program, own_program_in};
pub use secrets::{scrub_environment, scrub_whole_environment, secret_variable};

/// Whether messages go to a terminal.
pub fn stderr_is_terminal() -> bool {
    io::IsTerminal::is_terminal(&io::stderr())
}

/// The hidden command that builds a closed room and becomes a program in it.
#[cfg(not(target_os = "linux"))]
pub const CLOSED_COMMAND: &str = "__closed";

/// What a program in a closed room can reach.
#[cfg(not(target_os = "linux"))]
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Room {
    /// An empty folder.
    pub at: PathBuf,
    /// What can be read: where it is, and where it is in the room.
    pub read: Vec<(PathBuf, PathBuf)>,
    /// What can be written.
    pub write: Vec<PathBuf>,
    /// Where the program starts.
    pub cwd: PathBuf,
    /// The root folder of the system that it sees.
    pub system: Option<PathBuf>,
    /// Every IPv4 address leads to the room itself.
    #[serde(default)]
    pub all_addresses: bool,
}

/// No closed rooms here.
///
/// # Errors
/// Always.
#[cfg(not(target_os = "linux"))]
pub fn room_supported() -> std::result::Result<(), String> {
    Err("this system has no namespaces".into())
}

/// No closed rooms here.
#[cfg(not(target_os = "linux"))]
pub fn enter_room(_room: &Room, _argv: &[OsString]) -> Error {
    Error::world("closed-room", "this system has no namespaces")
}

/// Memory dumps are the system's affair here.
#[cfg(not(target_os = "linux"))]
pub fn no_dumps(_core_only: bool) {}

static CANCELLED: AtomicBool = AtomicBool::new(false);

/// Asks everything to stop: what Ctrl-C does.
pub fn cancel() {
    CANCELLED.store(true, Ordering::SeqCst);
}

/// Whether somebody asked to stop.
pub fn cancelled() -> bool {
    CANCELLED.load(Ordering::SeqCst)
}

/// An error if somebody asked to stop.
///
/// # Errors
/// [`Error::cancelled`].
pub fn check_cancelled() -> Result<()> {
    if cancelled() { Err(Error::cancelled()) } else { Ok(()) }
}

/// Most bytes of a text that a person wrote, or signed: a key, a token, a policy, a recipe.
pub const MOST_TEXT: u64 = 4 << 20;
/// Most bytes of a lock.
pub const MOST_LOCK: u64 = 256 << 20;

/// The text of the file at `path`, which may be a pipe, if it has at most `most` bytes.
///
/// # Errors
/// It cannot be read, is no text, or is longer; the error does not name the file.
pub fn read_text(path: &Path, most: u64) -> io::Result<String> {
    let file = std::fs::File::open(path)?;
    // Room for all of it: where it is a secret, what grows leaves copies behind.
    let room = file.metadata()?.len().min(most).saturating_add(1);
    let mut text = String::with_capacity(usize::try_from(room).unwrap_or_default());
    file.take(most.saturating_add(1)).read_to_string(&mut text)?;
    if text.len() as u64 > most {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {most} bytes")));
    }
    Ok(text)
}

/// Whether `path` is a folder, and no link to one.
pub fn is_own_folder(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|about| about.is_dir())
}

/// The bytes of the regular file at `path`, if it has at most `most`: of no pipe, which nobody may ever write to, and over
/// no link.
///
/// # Errors
/// It cannot be read, is no regular file, or is longer.
pub fn read_regular(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let longer = || io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {most} bytes"));
    let file = open_regular(path, false)?;
    // What says so of itself is not read up to there.
    if file.metadata()?.len() > most {
        return Err(longer());
    }
    let mut bytes = Vec::new();
    file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(longer());
    }
    Ok(bytes)
}

/// What is wrong in a text of TOML, with the line's number and without its words: it may be a secret.
pub fn toml_error(text: &str, error: &toml::de::Error) -> String {
    let line =
        error.span().map_or(1, |span| text.as_bytes()[..span.start.min(text.len())].split(|b| *b == b'\n').count());
    format!("line {line}: {}", error.message().lines().next().unwrap_or_default())
}

/// `text` as TOML has it. What Rust's own form of a text has for an accent that stands alone, and for what cannot be
/// shown (`\u{301}`), TOML does not know.
pub fn toml_text(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// The user's cache folder (XDG base directories, `~/Library/Caches`, `%LOCALAPPDATA%`).
pub fn cache_dir() -> Option<PathBuf> {
    let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    if cfg!(windows) {
        var("LOCALAPPDATA")
    } else if cfg!(target_os = "macos") {
        var("HOME").map(|h| h.join("Library/Caches"))
    } else {
        var("XDG_CACHE_HOME").filter(|p| p.is_absolute()).or_else(|| var("HOME").map(|h| h.join(".cache")))
    }
}

/// The user's home folder.
pub fn home_dir() -> Option<PathBuf> {
    std::env::var_os(if cfg!(windows) { "USERPROFILE" } else { "HOME" }).filter(|v| !v.is_empty()).map(PathBuf::from)
}

/// What the system below `root` calls itself: PRETTY_NAME of os-release(5).
pub fn distribution(root: &Path) -> Option<String> {
    let said = std::fs::read_to_string(root.join("etc/os-release")).ok()?;
    let name = said.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    Some(name.trim_matches('"').to_owned())
}

/// Finds `program` on `PATH`.
pub fn which(program: &str) -> Option<PathBuf> {
    if program.contains(std::path::MAIN_SEPARATOR) {
        return Path::new(program).is_file().then(|| PathBuf::from(program));
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).find_map(|dir| {
        let plain = dir.join(program);
        let exe = dir.join(format!("{program}{}", std::env::consts::EXE_SUFFIX));
        [plain, exe].into_iter().find(|p| p.is_file())
    })
}

/// Renames `from` to `to`. Where another program holds one of them open for an instant, as a virus scanner
/// does on Windows, it is tried again for two seconds.
///
/// # Errors
/// As [`std::fs::rename`], with both paths.
pub fn rename(from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<()> {
    let (from, to) = (from.as_ref(), to.as_ref());
    match while_held(imp::is_held, || std::fs::rename(from, to)) {
        Ok(()) => Ok(()),
        // Once more, for an error that names both.
        Err(_) => Ok(fs_err::rename(from, to)?),
    }
}

/// Gives a finished temporary file its final name, as [`rename`] does.
///
/// # Errors
/// As [`rename`].
pub fn persist(file: tempfile::NamedTempFile, to: &Path) -> Result<()> {
    let mut file = Some(file);
    let done = while_held(imp::is_held, || match file.take() {
        Some(held) => held.persist(to).map(drop).map_err(|e| {
            file = Some(e.file);
            e.error
        }),
        None => Ok(()),
    });
    done.map_err(|e| Error::world("io", format!("cannot write {}: {e}", to.display())))
}

/// Does `work` again, at growing intervals, while it fails because something is held by another program.
fn while_held<T>(held: impl Fn(&io::Error) -> bool, mut work: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    const ATTEMPTS: u32 = 9;
    let mut pause = Duration::from_millis(8);
    for _ in 0..ATTEMPTS {
        match work() {
            Err(e) if held(&e) => std::thread::sleep(pause),
            done => return done,
        }
        pause = (pause * 2).min(Duration::from_millis(500));
    }
    work()
}

/// The file, if it is a regular one.
fn regular(file: std::fs::File) -> io::Result<std::fs::File> {
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"))
}

/// Runs `argv` to its end.
fn status_of(argv: &[OsString]) -> Result<ExitStatus> {
    let Some((program, arguments)) = argv.split_first() else {
        return Err(Error::misuse("exec", "nothing to run"));
    };
    Command::new(program)
        .args(arguments)
        .status()
        .map_err(|e| Error::world("exec", format!("cannot run {}: {e}", Path::new(program).display())))
}

/// Prepares `command` to be killed as a whole: a process group of its own, and death with us.
pub fn isolate(command: &mut Command) {
    new_process_group(command);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_for_an_instant_is_waited_for_and_what_fails_otherwise_is_not() {
        let busy = || io::Error::from(io::ErrorKind::ResourceBusy);
        let held = |e: &io::Error| e.kind() == io::ErrorKind::ResourceBusy;
        let mut left = 3;
        let done = while_held(held, || {
            left -= 1;
            if left > 0 { Err(busy()) } else { Ok(left) }
        });
        assert_eq!(done.unwrap(), 0);

        let mut calls = 0;
        let failed = while_held(held, || -> io::Result<()> {
            calls += 1;
            Err(io::ErrorKind::NotFound.into())
        });
        assert_eq!((failed.unwrap_err().kind(), calls), (io::ErrorKind::NotFound, 1));
    }

    #[test]
    fn a_link_to_a_folder_leads_there_and_is_removed_without_it() {
        let dir = tempfile::tempdir().unwrap();
        let (target, link) = (dir.path().join("target"), dir.path().join("link"));
        std::fs::create_dir(&target).unwrap();
        std::fs::write(target.join("file"), "here").unwrap();
        if let Err(e) = symlink(&target, &link) {
            // Wine has no junctions (system error 50: not supported); every Windows has.
            assert!(cfg!(windows) && e.what().contains("os error 50"), "{}", e.what());
            return;
        }
        assert_eq!(std::fs::read_to_string(link.join("file")).unwrap(), "here");
        remove_link(&link).unwrap();
        assert!(!link.exists());
        assert!(target.join("file").exists());
    }

    #[test]
    fn a_file_is_renamed_over_another_one() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        std::fs::write(&a, "new").unwrap();
        std::fs::write(&b, "old").unwrap();
        rename(&a, &b).unwrap();
        assert_eq!(std::fs::read_to_string(&b).unwrap(), "new");
        let missing = rename(&a, &b).unwrap_err();
        assert!(missing.what().contains("rename"), "{}", missing.what());
    }
}
