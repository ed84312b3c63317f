//! Reading binaries: which libraries and symbol versions a shared object needs, and whether it
//! holds the libuv store.

mod elf;

use std::io::Read;
use std::path::Path;

use crate::error::Result;

pub use elf::{Elf, VersionNeed};

/// The type-info name of the daemon class, which survives stripping (Itanium C++ ABI: ELF, Mach-O).
pub const DAEMON_ITANIUM: &[u8] = b"N4c10d6detail16LibUVStoreDaemonE";
/// The same for MSVC.
pub const DAEMON_MSVC: &[u8] = b".?AVLibUVStoreDaemon@detail@c10d@@";

/// Whether `bytes` (an object or library) hold the type info of c10d's libuv daemon. The text
/// "libuv support" is in every build: it is the error's own text and proves nothing.
pub fn has_libuv_daemon(bytes: &[u8]) -> bool {
    [DAEMON_ITANIUM, DAEMON_MSVC].iter().any(|marker| memmem(bytes, marker))
}

/// Whether the file at `path` holds the daemon's type info; reads it in pieces.
pub fn file_has_libuv_daemon(path: &Path) -> Result<bool> {
    Ok(file_contains(path, DAEMON_ITANIUM)? || file_contains(path, DAEMON_MSVC)?)
}

/// Whether the file at `path` contains `needle`; reads it in pieces.
pub fn file_contains(path: &Path, needle: &[u8]) -> Result<bool> {
    let mut file = fs_err::File::open(path)?;
    let mut buffer = vec![0u8; 1 << 20];
    let mut kept = 0;
    loop {
        let n = file.read(&mut buffer[kept..])?;
        if n == 0 {
            return Ok(false);
        }
        let end = kept + n;
        if memmem(&buffer[..end], needle) {
            return Ok(true);
        }
        // What may be the beginning of a match goes to the front.
        kept = (needle.len() - 1).min(end);
        buffer.copy_within(end - kept..end, 0);
    }
}

fn memmem(haystack: &[u8], needle: &[u8]) -> bool {
    memchr::memmem::find(haystack, needle).is_some()
}
