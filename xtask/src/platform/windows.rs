//! Windows. What the build itself needs there is not built here yet; what is below keeps the rest
//! of the program free of platform code.

use std::ffi::OsString;
use std::fs::File;
use std::os::windows::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::error::{Error, Result};

const CREATE_NEW_PROCESS_GROUP: u32 = 0x0000_0200;

/// A process group of its own.
pub fn new_process_group(command: &mut Command) {
    command.creation_flags(CREATE_NEW_PROCESS_GROUP);
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

/// Runs `argv` and exits with its code: Windows cannot cut the network off for one process.
pub fn sandbox_exec(_cut_network: bool, argv: &[OsString]) -> Error {
    exec(argv)
}

/// Runs `argv` and exits with its code. Returns only on failure.
pub fn exec(argv: &[OsString]) -> Error {
    let Some((program, arguments)) = argv.split_first() else {
        return Error::misuse("sandbox", "nothing to run");
    };
    match Command::new(program).args(arguments).status() {
        Ok(status) => std::process::exit(status.code().unwrap_or(3)),
        Err(e) => Error::world("exec", format!("cannot run {}: {e}", Path::new(program).display())),
    }
}

/// Runs `argv` to its end: its exit code. What it needed is not known.
pub fn run_measured(argv: &[OsString]) -> Result<(i32, u64)> {
    let status = super::status_of(argv)?;
    Ok((status.code().unwrap_or(3), 0))
}

/// No umask.
pub fn set_umask(_mask: u32) {}

/// Not asked on Windows.
pub fn is_root() -> bool {
    false
}

/// No program is started as another user here.
pub fn other_user(_program: &Path, _dir: &Path) -> Option<u32> {
    None
}

/// Nothing to do.
pub fn change_owner(_dir: &Path, _user: u32) -> Result<()> {
    Ok(())
}

/// A process group of its own.
pub fn enter_world(command: &mut Command, _user: Option<u32>, _umask: u32) {
    new_process_group(command);
}

/// Unknown.
pub fn free_space(_path: &Path) -> Option<u64> {
    None
}

/// Unknown.
pub fn available_memory() -> Option<u64> {
    None
}

/// Unknown.
pub fn peak_memory() -> Option<u64> {
    None
}

/// Unknown.
pub fn cpu_seconds() -> f64 {
    0.0
}

/// Nothing to do.
pub fn make_traversable(_dir: &Path) -> Result<()> {
    Ok(())
}

/// Nothing to do.
pub fn make_readable(_file: &File) -> Result<()> {
    Ok(())
}

/// Nothing to do.
pub fn mark_executable(_path: &Path, _executable: bool) -> Result<()> {
    Ok(())
}

/// Windows knows no such mode.
pub fn is_executable(_path: &Path) -> Result<bool> {
    Ok(false)
}

/// Whether messages go to a terminal.
pub fn stderr_is_terminal() -> bool {
    std::io::IsTerminal::is_terminal(&std::io::stderr())
}

/// Nothing to do: Windows has no such signal.
pub fn die_of_broken_pipes() {}

/// There is no limit that a process could raise.
pub fn raise_open_files() {}
