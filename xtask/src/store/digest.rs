//! Hashing what is read.

use std::io::{Read, Write};
use std::path::Path;

use torchmill_bytes::digest::{self, copy_hashing};

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

/// SHA-256 and size of the file at `path`.
///
/// # Errors
/// The world: it cannot be read.
pub fn digest_file(path: &Path) -> Result<(String, u64)> {
    Ok(digest::digest_file(path)?)
}
