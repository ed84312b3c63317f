//! All that differs between operating systems, behind one small interface: process groups,
//! cutting the network off, memory, disk space, modes. The only place where `unsafe` is allowed.

#[cfg(unix)]
mod unix;
#[cfg(unix)]
use unix as imp;
#[cfg(windows)]
mod windows;
#[cfg(windows)]
use windows as imp;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};

pub use imp::{
    available_memory, change_owner, cpu_seconds, die_of_broken_pipes, die_with_parent, enter_world, exec, free_space,
    is_executable, is_root, kill_tree, make_readable, make_traversable, mark_executable, new_process_group, other_user,
    peak_memory, raise_open_files, run_measured, sandbox_exec, sandbox_supported, set_umask, stderr_is_terminal,
};

use crate::error::{Error, Result};

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
pub fn check_cancelled() -> Result<()> {
    if cancelled() { Err(Error::cancelled()) } else { Ok(()) }
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

/// Makes a symbolic link at `link` that leads to `target` (a folder, on Windows).
pub fn symlink(target: &Path, link: &Path) -> Result<()> {
    #[cfg(unix)]
    fs_err::os::unix::fs::symlink(target, link)?;
    #[cfg(windows)]
    std::os::windows::fs::symlink_dir(target, link)?;
    Ok(())
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
