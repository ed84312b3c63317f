//! Opening zip archives that need not be wheels: their directory, which a reader has in memory, has a bound.

use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use zip::ZipArchive;

use crate::read::{Cursor, ReadAt};

/// A source that gives no more than so many bytes, until an archive's directory was read.
#[derive(Clone)]
pub struct Directory<'a> {
    inner: Cursor<'a>,
    left: Arc<AtomicU64>,
}

impl Read for Directory<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        let left = self.left.load(Ordering::Relaxed);
        if left != u64::MAX {
            let left = left.saturating_sub(n as u64);
            self.left.store(left, Ordering::Relaxed);
            if left == 0 {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
        }
        Ok(n)
    }
}

impl Seek for Directory<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.inner.seek(to)
    }
}

/// Opens the zip archive in `source`, whose directory has at most `most` bytes, read the way that `how` makes.
///
/// # Errors
/// It is none, or its directory is larger.
pub fn open_zip<'a, R: Read + Seek>(
    source: &'a dyn ReadAt,
    most: u64,
    how: impl FnOnce(Directory<'a>) -> R,
) -> Result<ZipArchive<R>, String> {
    let left = Arc::new(AtomicU64::new(most));
    let archive = ZipArchive::new(how(Directory { inner: Cursor::new(source), left: Arc::clone(&left) }));
    if left.swap(u64::MAX, Ordering::Relaxed) == 0 {
        return Err(format!("its directory has more than {most} bytes"));
    }
    archive.map_err(|e| e.to_string())
}
