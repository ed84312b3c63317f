//! Wheels: an unpacked folder becomes a `.whl` with a right RECORD and fixed bytes (PEP 427, the
//! binary distribution format).

use std::io::{Seek, Write};
use std::path::{Path, PathBuf};

use torchmill_bytes::names::below;

use super::zip::{Content, Member, ZipWriter};
use crate::error::{Error, Result};
use crate::wheel::record;

/// Packs the folder `root`, which holds one `*.dist-info`, to `out`.
///
/// # Errors
/// The world: a file cannot be read or written, or the folder does not hold one `*.dist-info`.
pub fn pack<W: Write + Seek>(root: &Path, out: W, epoch: i64) -> Result<W> {
    let dist_info = dist_info(root)?;
    let record_name = format!("{dist_info}/RECORD");
    let mut members = collect(root)?;
    members.retain(|m| m.name != record_name);
    // The metadata come last, as the format recommends, so that they can be found from the end.
    members.sort_by_key(|m| (m.name.starts_with(&dist_info), m.name.clone()));
    let mut zip = ZipWriter::new(out, epoch);
    let written = zip.add_all(&members)?;
    let mut record: String = written.iter().map(|w| record::line(&w.name, &w.sha256, w.size)).collect();
    record.push_str(&record::own_line(&record_name));
    zip.add_all(&[Member { name: record_name, content: Content::Bytes(record.into_bytes()), executable: false }])?;
    zip.finish()
}

/// All files below `root` as members, sorted by name.
///
/// # Errors
/// The world: a folder or a file cannot be read.
pub fn collect(root: &Path) -> Result<Vec<Member>> {
    let mut members = Vec::new();
    for entry in walkdir::WalkDir::new(root).sort_by_file_name() {
        let entry = entry.map_err(|e| Error::world("io", e.to_string()))?;
        if !entry.file_type().is_file() {
            continue;
        }
        let name = below(root, entry.path());
        let executable = crate::platform::is_executable(entry.path())?;
        members.push(Member { name, content: Content::File(entry.into_path()), executable });
    }
    members.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(members)
}

/// Name of the one `*.dist-info` folder of an unpacked wheel.
///
/// # Errors
/// The world: there is none, or more than one.
pub fn dist_info(root: &Path) -> Result<String> {
    let found: Vec<String> = fs_err::read_dir(root)?
        .flatten()
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .filter(|n| n.ends_with(".dist-info"))
        .collect();
    match &found[..] {
        [one] => Ok(one.clone()),
        _ => Err(Error::world("wheel", format!("expected one *.dist-info in the wheel, found {}", found.len()))),
    }
}

/// Writes the `WHEEL` file of `root` for `tag` and returns the wheel's file name.
///
/// # Errors
/// The world: there is not one `*.dist-info`, or it cannot be written.
pub fn set_tag(root: &Path, tag: &str) -> Result<String> {
    let dist_info = dist_info(root)?;
    let text = format!(
        "Wheel-Version: 1.0\nGenerator: torchmill ({})\nRoot-Is-Purelib: false\nTag: {tag}\n",
        env!("CARGO_PKG_VERSION")
    );
    fs_err::write(root.join(&dist_info).join("WHEEL"), text)?;
    Ok(format!("{}-{tag}.whl", dist_info.trim_end_matches(".dist-info")))
}

/// The wheel that a backend left in `folder`.
///
/// # Errors
/// The world: there is none, or more than one.
pub fn only_wheel(folder: &Path) -> Result<PathBuf> {
    let mut wheels: Vec<PathBuf> = fs_err::read_dir(folder)?
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.extension().is_some_and(|x| x == "whl"))
        .collect();
    match (wheels.pop(), wheels.is_empty()) {
        (Some(one), true) => Ok(one),
        _ => Err(Error::world("wheel", format!("the PEP 517 backend left no single wheel in {}", folder.display()))),
    }
}
