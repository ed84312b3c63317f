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
        let n = reader.read(&mut buffer)?;
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
