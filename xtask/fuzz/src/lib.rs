//! What the fuzz targets share.

/// A library with `magic` before any content ends in a description or an error, and so does the
/// content by itself.
pub fn library(magic: &[u8], data: &[u8]) {
    let _ = xtask::inspect::library(&data.to_vec());
    // The class' name somewhere makes the search for proof run.
    let names = b"N4c10d6detail16LibUVStoreDaemonE\0.?AVLibUVStoreDaemon@detail@c10d@@\0";
    let _ = xtask::inspect::library(&[magic, data, names].concat());
}
