//! Hashing what is read.

use std::io::{Read, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::error::Result;

/// SHA-256 and size of what `reader` gives.
///
/// # Errors
/// Whatever `reader` meets.
pub fn digest_reader(reader: &mut impl Read) -> std::io::Result<(String, u64)> {
    copy_digesting(reader, &mut std::io::sink())
}

/// Copies what `reader` gives; its SHA-256 and size.
///
/// # Errors
/// Whatever `reader` or `writer` meets.
pub fn copy_digesting(reader: &mut impl Read, writer: &mut impl Write) -> std::io::Result<(String, u64)> {
    let (sha256, size) = copy_hashing(reader, writer)?;
    Ok((hex::encode(sha256), size))
}

/// SHA-256, as bytes, and size of what `reader` gives: for lists that are long.
///
/// # Errors
/// Whatever `reader` meets.
pub fn hash_reader(reader: &mut impl Read) -> std::io::Result<([u8; 32], u64)> {
    copy_hashing(reader, &mut std::io::sink())
}

fn copy_hashing(reader: &mut impl Read, writer: &mut impl Write) -> std::io::Result<([u8; 32], u64)> {
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
/// The world: it cannot be read.
pub fn digest_file(path: &Path) -> Result<(String, u64)> {
    let mut file = fs_err::File::open(path)?;
    Ok(digest_reader(&mut file)?)
}
