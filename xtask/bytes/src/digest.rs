//! Hashing what is read.

use std::io::{self, Read, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

/// Copies what `reader` gives; its SHA-256 and size.
///
/// # Errors
/// Whatever `reader` or `writer` meets.
pub fn copy_hashing(reader: &mut dyn Read, writer: &mut dyn Write) -> io::Result<([u8; 32], u64)> {
    let mut hash = Sha256::new();
    // A small one first: of small files there may be hundreds of thousands.
    let mut buffer = vec![0u8; 1 << 13];
    let mut size = 0u64;
    loop {
        let n = match reader.read(&mut buffer) {
            Ok(n) => n,
            // A signal came in between; nothing is wrong with what is read.
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        if n == 0 {
            return Ok((hash.finalize().into(), size));
        }
        hash.update(&buffer[..n]);
        writer.write_all(&buffer[..n])?;
        size += n as u64;
        if n == buffer.len() {
            buffer.resize(1 << 18, 0);
        }
    }
}

/// SHA-256 and size of the file at `path`.
///
/// # Errors
/// It cannot be read.
pub fn digest_file(path: &Path) -> io::Result<(String, u64)> {
    let mut file = fs_err::File::open(path)?;
    let (sha256, size) = copy_hashing(&mut file, &mut io::sink())?;
    Ok((hex::encode(sha256), size))
}

/// SHA-256 of `bytes`.
pub fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives a byte, and is interrupted, in turn.
    struct Interrupted<'a>(&'a [u8], bool);

    impl Read for Interrupted<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.1 = !self.1;
            if self.1 {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let Some((first, rest)) = self.0.split_first() else { return Ok(0) };
            (buffer[0], self.0) = (*first, rest);
            Ok(1)
        }
    }

    #[test]
    fn who_is_interrupted_goes_on_reading() {
        let mut copy = Vec::new();
        let (digest, size) = copy_hashing(&mut Interrupted(b"some bytes", false), &mut copy).unwrap();
        assert_eq!((hex::encode(digest), size), (sha256(b"some bytes"), 10));
        assert_eq!(copy, b"some bytes");
    }
}
