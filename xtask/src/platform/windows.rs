//! Windows. What has no counterpart there does nothing or says that it does not know; nothing outside this file
//! needs to ask.

use std::ffi::OsString;
use std::fs::File;
use std::os::windows::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, Result};

const CREATE_NEW_PROCESS_GROUP: u32 = 0x0000_0200;

/// A process group of its own.
pub fn new_process_group(command: &mut Command) {
    command.creation_flags(CREATE_NEW_PROCESS_GROUP);
}

/// Windows has no sessions of this kind.
pub fn new_session(command: &mut Command) {
    new_process_group(command);
}

/// Ends a process and its children.
pub fn kill_tree(pid: u32, _hard: bool) {
    let _ = Command::new("taskkill").args(["/T", "/F", "/PID", &pid.to_string()]).output();
}

/// Windows has no parent-death signal.
pub fn die_with_parent() {}

/// No network namespaces.
pub fn sandbox_supported() -> bool {
    false
}

/// No mount namespaces.
///
/// # Errors
/// Always.
pub fn hiding_supported() -> std::result::Result<(), String> {
    Err("this system has no namespaces".into())
}

/// Runs `argv` and exits with its code: Windows cannot cut the network off for one process, nor hide folders from it.
pub fn sandbox_exec(_cut_network: bool, _hidden: &[PathBuf], argv: &[OsString]) -> Error {
    exec(argv)
}

/// Runs `argv` and exits with its code. Returns only on failure.
pub fn exec(argv: &[OsString]) -> Error {
    match super::status_of(argv) {
        Ok(status) => std::process::exit(status.code().unwrap_or(3)),
        Err(e) => e,
    }
}

/// Runs `argv` to its end: its exit code. What it needed is not known.
///
/// # Errors
/// Misuse: `argv` is empty. The world: it cannot be started.
pub fn run_measured(argv: &[OsString]) -> Result<(i32, u64)> {
    let status = super::status_of(argv)?;
    Ok((status.code().unwrap_or(3), 0))
}

/// Users have no numbers.
pub fn this_user() -> u32 {
    0
}

/// Who may write is in access lists, which are not read here.
pub fn shared_with(_folders: &[PathBuf]) -> Option<String> {
    None
}

/// The same of a folder and those on the way to it.
pub fn replaceable_by_others(_folder: &Path) -> Option<String> {
    None
}

/// Nothing: Windows has no umask.
pub fn set_umask(_mask: u32) {}

/// Makes `link` lead to `target`: a junction to a folder, which needs no privilege as a symbolic link does; a
/// second name of a file.
///
/// # Errors
/// The world: the junction cannot be made; the file can neither be linked nor copied.
pub fn symlink(target: &Path, link: &Path) -> Result<()> {
    let target = link.parent().unwrap_or(Path::new(".")).join(target);
    if target.is_dir() {
        let made = junction::create(std::path::absolute(&target)?, link);
        return made.map_err(|e| {
            Error::world("io", format!("cannot make {} lead to {}: {e}", link.display(), target.display()))
                .next("is the folder on a file system that knows junctions (NTFS, ReFS)?")
        });
    }
    if fs_err::hard_link(&target, link).is_err() {
        fs_err::copy(&target, link)?;
    }
    Ok(())
}

/// Removes a link that [`symlink`] made, and not what it leads to.
///
/// # Errors
/// The world: it cannot be removed.
pub fn remove_link(link: &Path) -> Result<()> {
    // A junction is a folder to those that remove.
    if link.is_dir() {
        return Ok(fs_err::remove_dir(link)?);
    }
    Ok(fs_err::remove_file(link)?)
}

/// Access denied, sharing violation, lock violation (system error codes 5, 32, 33): somebody has it open.
pub fn is_held(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(5 | 32 | 33))
}

/// Folders of the system's programs.
pub fn system_programs() -> Vec<PathBuf> {
    let root = std::env::var_os("SystemRoot").map_or_else(|| PathBuf::from(r"C:\Windows"), PathBuf::from);
    vec![root.join("System32"), root]
}

/// What every program needs in its environment here: where Windows is (without it no socket can be made), how
/// programs end, which processor it is, and folders of its own for what is temporary, below `work`.
pub fn own_variables(work: &Path) -> Vec<(String, String)> {
    const TAKEN: &[&str] = &[
        "SystemRoot",
        "SystemDrive",
        "windir",
        "ComSpec",
        "PATHEXT",
        "NUMBER_OF_PROCESSORS",
        "PROCESSOR_ARCHITECTURE",
        "ProgramFiles",
        "ProgramFiles(x86)",
        "ProgramData",
    ];
    let taken = TAKEN.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)));
    let own = [("TEMP", "tmp"), ("TMP", "tmp"), ("USERPROFILE", "home"), ("LOCALAPPDATA", "home")];
    taken.chain(own.map(|(name, dir)| (name.to_owned(), work.join(dir).display().to_string()))).collect()
}

/// No such bounds here.
pub fn use_cores(_count: usize) {}

/// Other users are another matter here.
pub fn exec_as(_argv: &[OsString], _env: &[(&str, OsString)], _user: Option<(u32, u32)>) -> Error {
    Error::world("exec", "this system has no such users")
}

/// The folder for temporary files is each user's own on Windows.
pub fn is_own(_path: &Path) -> bool {
    true
}

/// Not asked on Windows.
pub fn is_root() -> bool {
    false
}

/// No program is started as another user here.
pub fn other_user(_program: &Path, _dir: &Path) -> Option<u32> {
    None
}

/// Nothing to do.
///
/// # Errors
/// Never.
pub fn change_owner(_dir: &Path, _user: u32) -> Result<()> {
    Ok(())
}

/// A process group of its own.
pub fn enter_variation(command: &mut Command, _user: Option<u32>, _umask: u32) {
    new_process_group(command);
}

/// Not asked for here: whoever wants to know goes on without.
pub fn free_space(_path: &Path) -> Option<u64> {
    None
}

/// Not asked for here: whoever wants to know goes on without.
pub fn available_memory() -> Option<u64> {
    None
}

/// Not asked for here: whoever wants to know goes on without.
pub fn peak_memory() -> Option<u64> {
    None
}

/// Not asked for here: 0, so that a difference of two says nothing.
pub fn cpu_seconds() -> f64 {
    0.0
}

/// Nothing to do.
///
/// # Errors
/// Never.
pub fn make_traversable(_dir: &Path) -> Result<()> {
    Ok(())
}

/// Nothing to do: a folder is not opened as a file is, and NTFS keeps a journal of the names in it.
///
/// # Errors
/// Never.
pub fn sync_folder(_folder: &Path) -> Result<()> {
    Ok(())
}

/// Nothing to do.
///
/// # Errors
/// Never.
pub fn make_readable(_file: &File) -> Result<()> {
    Ok(())
}

/// Nothing to do.
///
/// # Errors
/// Never.
pub fn mark_executable(_path: &Path, _executable: bool) -> Result<()> {
    Ok(())
}

/// Windows knows no such mode.
///
/// # Errors
/// Never.
pub fn is_executable(_path: &Path) -> Result<bool> {
    Ok(false)
}

/// Nothing to do: Windows has no such signal.
pub fn die_of_broken_pipes() {}

/// Nothing to do: a console that closes ends its programs.
pub fn outlive_terminal() {}

/// There is no limit that a process could raise.
pub fn raise_open_files() -> u64 {
    u64::MAX
}

/// The system's own bound holds.
pub fn bound_unsent<T>(_socket: &T, _bytes: i32) {}

/// A connection lasts as long as what stands between lets it.
///
/// # Errors
/// Never.
pub fn keep_alive<T>(_socket: &T, _every: std::time::Duration) -> std::io::Result<()> {
    Ok(())
}

/// There is none here that a socket could be written from.
///
/// # Errors
/// Always: `Unsupported`.
pub fn memory_file() -> std::io::Result<File> {
    Err(std::io::ErrorKind::Unsupported.into())
}

/// Not known here.
///
/// # Errors
/// Always: `Unsupported`.
pub fn send_more<T>(_socket: &T, _bytes: &[u8]) -> std::io::Result<usize> {
    Err(std::io::ErrorKind::Unsupported.into())
}

/// Not known here.
///
/// # Errors
/// Always: `Unsupported`.
pub fn send_of<T>(_socket: &T, _file: &File, _at: u64, _count: usize) -> std::io::Result<usize> {
    Err(std::io::ErrorKind::Unsupported.into())
}

/// Windows tells no number of a file without opening it.
pub type FileId = ();

/// Of a file.
pub fn file_id(_about: &std::fs::Metadata) -> FileId {}

/// Whether a file stands at `path` still; which one it is, nobody is told without a number.
pub fn stands_at(_file: &File, path: &Path) -> bool {
    path.exists()
}

/// What is another text after every change of a file's bytes: without opening it, nothing is.
pub fn stamp(_about: &std::fs::Metadata) -> Option<String> {
    None
}

/// Opens a regular file for reading, and nothing else; unless `follow`, no symbolic link either.
///
/// # Errors
/// Whatever keeps it from being opened; `InvalidInput` for what is no regular file.
pub fn open_regular(path: &Path, follow: bool) -> std::io::Result<File> {
    if !follow && std::fs::symlink_metadata(path)?.is_symlink() {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "it is a symbolic link"));
    }
    super::regular(File::open(path)?)
}

/// Opens the file at `path` for reading and writing, which is made if need be. No symbolic link is followed: it may lead to
/// a file that is not meant.
///
/// # Errors
/// Whatever keeps it from being opened; the file is named.
pub fn open_or_make(path: &Path) -> std::io::Result<File> {
    let named = |e: std::io::Error| std::io::Error::new(e.kind(), format!("{}: {e}", path.display()));
    if std::fs::symlink_metadata(path).is_ok_and(|about| about.is_symlink()) {
        return Err(named(std::io::Error::new(std::io::ErrorKind::InvalidInput, "it is a symbolic link")));
    }
    std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(named)
}

/// Whether a read would wait is not known.
///
/// # Errors
/// Always: `WouldBlock`.
pub fn read_at_once(_file: &File, _buffer: &mut [u8], _offset: u64) -> std::io::Result<usize> {
    Err(std::io::ErrorKind::WouldBlock.into())
}

/// Reads at `offset`.
///
/// # Errors
/// Whatever reading meets.
pub fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, buffer, offset)
}
