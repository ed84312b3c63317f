//! One side of a comparison: a zip archive (wheel), a tar.gz, a folder or a file, as a list of
//! entries with their digests; contents are read again only where they differ.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::inspect::{Cursor, FileAt};
use crate::store::digest_reader;

/// A member of an archive, a file of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Path with `/`.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Bytes as packed; `size` where nothing is packed.
    pub packed: u64,
    /// Digest of the contents.
    pub sha256: String,
    /// Whether it may be executed.
    pub executable: bool,
    /// Where a symbolic link points.
    pub link: Option<String>,
    /// Its time as the archive has it; empty for a folder's file, whose time is not its content.
    pub time: String,
    /// Its owner, where archives have one.
    pub owner: String,
    /// The rest of its header.
    pub header: String,
}

/// One side.
pub struct Tree {
    path: PathBuf,
    /// `zip`, `tar.gz`, `folder`, `file`.
    pub kind: &'static str,
    /// What the archive says of itself.
    pub header: String,
    /// In the archive's order; a folder's are sorted.
    pub entries: Vec<Entry>,
}

impl Tree {
    /// Reads the list.
    pub fn open(path: &Path) -> Result<Self> {
        let missing = || Error::misuse("no-artifact", format!("there is no {}", path.display()));
        let mut tree = Self { path: path.to_owned(), kind: "file", header: String::new(), entries: Vec::new() };
        if path.is_dir() {
            tree.kind = "folder";
            tree.folder()?;
            return Ok(tree);
        }
        let mut head = Vec::new();
        fs_err::File::open(path).map_err(|_| missing())?.take(10).read_to_end(&mut head)?;
        match head[..] {
            [b'P', b'K', 3 | 5, ..] => {
                tree.kind = "zip";
                tree.zip()?;
            }
            [0x1f, 0x8b, 8, flags, a, b, c, d, extra, system] => {
                tree.kind = "tar.gz";
                let time = u32::from_le_bytes([a, b, c, d]);
                tree.header = format!("gzip flags {flags}, time {time}, level {extra}, system {system}");
                tree.tar()?;
            }
            _ => {
                let (sha256, size) = crate::store::digest_file(path)?;
                // Two files are compared whatever each is called.
                tree.entries.push(plain("the file".into(), size, sha256));
            }
        }
        Ok(tree)
    }

    fn unreadable(&self, e: impl std::fmt::Display) -> Error {
        Error::misuse("unreadable", format!("{} is no readable {} archive: {e}", self.path.display(), self.kind))
            .next("is the file complete? compare its size and digest with SHA256SUMS")
    }

    fn folder(&mut self) -> Result<()> {
        let files: Vec<walkdir::DirEntry> = walkdir::WalkDir::new(&self.path)
            .sort_by_file_name()
            .into_iter()
            .filter(|e| e.as_ref().map_or(true, |e| !e.file_type().is_dir()))
            .collect::<std::result::Result<_, _>>()
            .map_err(|e| Error::world("io", e.to_string()))?;
        self.entries = files
            .par_iter()
            .map(|file| {
                let relative = file.path().strip_prefix(&self.path).unwrap_or(file.path());
                let name = relative.components().map(|c| c.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/");
                if file.file_type().is_symlink() {
                    let target = fs_err::read_link(file.path())?.to_string_lossy().into_owned();
                    return Ok(Entry { link: Some(target), ..plain(name, 0, String::new()) });
                }
                let (sha256, size) = crate::store::digest_file(file.path())?;
                Ok(Entry { executable: crate::platform::is_executable(file.path())?, ..plain(name, size, sha256) })
            })
            .collect::<Result<_>>()?;
        Ok(())
    }

    fn zip(&mut self) -> Result<()> {
        let file = FileAt::new(fs_err::File::open(&self.path)?.into_file())?;
        let archive = zip::ZipArchive::new(Cursor::new(&file)).map_err(|e| self.unreadable(e))?;
        self.header = format!("comment '{}'", String::from_utf8_lossy(archive.comment()));
        self.entries = (0..archive.len())
            .into_par_iter()
            .with_max_len(1)
            .map_init(
                || archive.clone(),
                |archive, i| {
                    let mut member = archive.by_index(i).map_err(|e| self.unreadable(e))?;
                    let name = member.name().map(|n| n.into_owned()).map_err(|e| self.unreadable(e))?;
                    let mode = member.unix_mode();
                    let time = member.last_modified().map(|t| t.to_string()).unwrap_or_default();
                    let header = format!(
                        "{}, mode {}, extra {}",
                        member.compression(),
                        mode.map_or("none".into(), |m| format!("{m:o}")),
                        member.extra_data().map(hex::encode).unwrap_or_default()
                    );
                    let packed = member.compressed_size();
                    let (sha256, size) =
                        digest_reader(&mut member).map_err(|e| self.unreadable(format!("{name}: {e}")))?;
                    Ok(Entry {
                        packed,
                        time,
                        header,
                        executable: mode.is_some_and(|m| m & 0o111 != 0),
                        ..plain(name, size, sha256)
                    })
                },
            )
            .collect::<Result<_>>()?;
        Ok(())
    }

    fn tar(&mut self) -> Result<()> {
        let mut entries = Vec::new();
        self.each(&mut |entry| {
            let header = entry.header();
            let text = |v: std::io::Result<u64>| v.map_or("unreadable".into(), |v| v.to_string());
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let link = entry.link_name_bytes().map(|l| String::from_utf8_lossy(&l).into_owned());
            let time = text(header.mtime());
            let user = String::from_utf8_lossy(header.username_bytes().unwrap_or_default()).into_owned();
            let owner = format!("{}:{} {user}", text(header.uid()), text(header.gid()));
            let mode = header.mode().unwrap_or_default();
            let shown = format!("type {:?}, mode {mode:o}", header.entry_type());
            let (sha256, size) = digest_reader(entry)?;
            entries.push(Entry {
                link,
                time,
                owner,
                header: shown,
                executable: mode & 0o111 != 0,
                ..plain(name, size, sha256)
            });
            Ok(())
        })?;
        self.entries = entries;
        Ok(())
    }

    fn each(&self, visit: &mut dyn FnMut(&mut tar::Entry<'_, Gunzip>) -> std::io::Result<()>) -> Result<()> {
        let file = BufReader::with_capacity(1 << 18, fs_err::File::open(&self.path)?.into_file());
        let mut archive = tar::Archive::new(flate2::bufread::GzDecoder::new(file));
        for entry in archive.entries().map_err(|e| self.unreadable(e))? {
            let mut entry = entry.map_err(|e| self.unreadable(e))?;
            visit(&mut entry).map_err(|e| self.unreadable(e))?;
        }
        Ok(())
    }

    /// The contents of the members called `names`.
    pub fn read(&self, names: &BTreeSet<String>) -> Result<BTreeMap<String, Vec<u8>>> {
        if names.is_empty() {
            return Ok(BTreeMap::new());
        }
        let mut out = BTreeMap::new();
        match self.kind {
            "zip" => {
                let file = FileAt::new(fs_err::File::open(&self.path)?.into_file())?;
                let mut archive = zip::ZipArchive::new(Cursor::new(&file)).map_err(|e| self.unreadable(e))?;
                for (i, _) in self.entries.iter().enumerate().filter(|(_, e)| names.contains(&e.name)) {
                    let mut bytes = Vec::new();
                    archive
                        .by_index(i)
                        .map_err(|e| self.unreadable(e))?
                        .read_to_end(&mut bytes)
                        .map_err(|e| self.unreadable(e))?;
                    out.insert(self.entries[i].name.clone(), bytes);
                }
            }
            "tar.gz" => self.each(&mut |entry| {
                let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
                if names.contains(&name) {
                    let mut bytes = Vec::new();
                    entry.read_to_end(&mut bytes)?;
                    out.insert(name, bytes);
                }
                Ok(())
            })?,
            "folder" => {
                for entry in self.entries.iter().filter(|e| names.contains(&e.name) && e.link.is_none()) {
                    out.insert(entry.name.clone(), fs_err::read(self.path.join(&entry.name))?);
                }
            }
            _ => {
                for entry in &self.entries {
                    out.insert(entry.name.clone(), fs_err::read(&self.path)?);
                }
            }
        }
        Ok(out)
    }
}

type Gunzip = flate2::bufread::GzDecoder<BufReader<std::fs::File>>;

fn plain(name: String, size: u64, sha256: String) -> Entry {
    let sha256 = if sha256.is_empty() { hex::encode(Sha256::digest(b"")) } else { sha256 };
    Entry {
        name,
        size,
        packed: size,
        sha256,
        executable: false,
        link: None,
        time: String::new(),
        owner: String::new(),
        header: String::new(),
    }
}
