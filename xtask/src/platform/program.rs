//! This program's own file.

use std::io;
use std::path::{Path, PathBuf};

/// This program's own file, to be started or copied. Linux has it also where another one stands in its place by now, as
/// after a `cargo build` while this one compiles for hours: what was started goes on with what it was.
///
/// # Errors
/// It cannot be found.
pub fn own_program() -> io::Result<PathBuf> {
    let program = std::env::current_exe()?;
    let itself = Path::new("/proc/self/exe");
    Ok(if !program.exists() && itself.exists() { itself.to_owned() } else { program })
}

/// The same by a path that a closed room can show: a copy in `folder` where another program stands in its place by now.
///
/// # Errors
/// It cannot be found, or not be copied.
pub fn own_program_in(folder: &Path) -> io::Result<PathBuf> {
    let program = own_program()?;
    if !program.starts_with("/proc") {
        return Ok(program);
    }
    let copy = folder.join("torchmill");
    match std::fs::remove_file(&copy) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => std::fs::copy(&program, &copy)?,
    };
    Ok(copy)
}
