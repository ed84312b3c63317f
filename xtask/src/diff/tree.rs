//! One side of a comparison: a zip archive (wheel), a tar.gz, a folder or a file, as a list of
//! entries with their digests; contents are read again only where they differ.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;
use sha2::{Digest, Sha256};
use torchmill_bytes::names::below;

use super::bytes::Bytes;
use crate::error::{Error, Result};
use crate::source::tarball::Guarded;
use crate::store::hash_reader;
use crate::wheel::{Directory, FileAt, ReadAt, open_zip};

/// Most bytes of all members that are looked into: they are unpacked to disk.
pub const MOST: u64 = 8 << 30;

/// Most members of an archive, and files of a folder.
const MOST_MEMBERS: usize = 150_000;
/// Most bytes of a zip archive's directory.
const MOST_OF_DIRECTORY: u64 = 20 << 20;
/// Most bytes of their names and headers.
const MOST_OF_HEADERS: usize = 48 << 20;
/// Deflate makes at most this many bytes of one.
const MOST_FROM_ONE: u64 = 1032;

/// A member of an archive, a file of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Path in the archive or folder, with `/`.
    pub name: String,
    /// Size in bytes, unpacked.
    pub size: u64,
    /// Bytes as packed; `size` where nothing is packed.
    pub packed: u64,
    /// Digest of the contents.
    pub sha256: [u8; 32],
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

impl Entry {
    /// Bytes of its name and header.
    fn header_bytes(&self) -> usize {
        let link = self.link.as_ref().map_or(0, String::len);
        self.name.len() + link + self.time.len() + self.owner.len() + self.header.len()
    }
}

/// One of the two that are compared, with all that is in it.
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
    /// Lists a folder's files, an archive's members, or a file as its only entry.
    ///
    /// # Errors
    /// Bad input: there is no such file or folder, an archive is broken, or its list is too long.
    pub fn open(path: &Path) -> Result<Self> {
        let missing = || Error::misuse("no-artifact", format!("there is no {}", path.display()));
        let mut tree = Self { path: path.to_owned(), kind: "file", header: String::new(), entries: Vec::new() };
        let about = fs_err::metadata(path).map_err(|_| missing())?;
        if !about.is_dir() && !about.is_file() {
            return Err(Error::misuse("no-artifact", format!("{} is no file and no folder", path.display())));
        }
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
                let (sha256, size) = hash_file(path)?;
                // Two files are compared whatever each is called.
                tree.entries.push(plain("the file".into(), size, sha256));
            }
        }
        Ok(tree)
    }

    /// Takes the list over, if its names and headers are not too much.
    fn take(&mut self, entries: Vec<Entry>) -> Result<()> {
        let sum: usize = entries.iter().map(Entry::header_bytes).sum();
        self.check_bounds(entries.len(), sum)?;
        self.entries = entries;
        Ok(())
    }

    fn check_bounds(&self, members: usize, headers: usize) -> Result<()> {
        if members <= MOST_MEMBERS && headers <= MOST_OF_HEADERS {
            return Ok(());
        }
        let what = format!(
            "{} has too much to compare: at most {MOST_MEMBERS} members, with {MOST_OF_HEADERS} bytes of names and headers, are read",
            self.path.display()
        );
        Err(Error::misuse("too-large", what).next("compare parts of it: unpack both, and name the folders"))
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
            .take(MOST_MEMBERS + 1)
            .collect::<std::result::Result<_, _>>()
            .map_err(|e| Error::world("io", e.to_string()))?;
        self.check_bounds(files.len(), 0)?;
        if let Some(odd) = files.iter().find(|f| !f.file_type().is_file() && !f.file_type().is_symlink()) {
            return Err(Error::misuse(
                "no-artifact",
                format!("{} is no plain file: it cannot be compared", odd.path().display()),
            ));
        }
        let entries = files
            .par_iter()
            .map(|file| {
                let name = below(&self.path, file.path());
                if file.file_type().is_symlink() {
                    let target = fs_err::read_link(file.path())?.to_string_lossy().into_owned();
                    return Ok(Entry { link: Some(target), ..plain(name, 0, Sha256::digest(b"").into()) });
                }
                let (sha256, size) = hash_file(file.path())?;
                Ok(Entry { executable: crate::platform::is_executable(file.path())?, ..plain(name, size, sha256) })
            })
            .collect::<Result<_>>()?;
        self.take(entries)
    }

    fn zip(&mut self) -> Result<()> {
        let file = FileAt::new(fs_err::File::open(&self.path)?.into_file())?;
        let archive = self.archive(&file)?;
        self.check_bounds(archive.len(), 0)?;
        let mut unpacked = 0u64;
        let counting = archive.clone();
        for i in 0..counting.len() {
            unpacked = unpacked.saturating_add(counting.by_index_data(i).map_err(|e| self.unreadable(e))?.size());
        }
        // Members that share bytes, or lie about their size, make more of a file than there can be in it.
        let (size, most) = (file.size(), file.size().saturating_mul(MOST_FROM_ONE));
        if unpacked > most {
            return Err(
                self.unreadable(format!("members of {unpacked} bytes; of a file of {size} bytes at most {most}"))
            );
        }
        self.header = format!("comment '{}'", String::from_utf8_lossy(archive.comment()));
        let entries = (0..archive.len())
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
                    let stated = member.size();
                    let (sha256, size) = hash_reader(&mut (&mut member).take(stated.saturating_add(1)))
                        .map_err(|e| self.unreadable(format!("{name}: {e}")))?;
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
        self.take(entries)
    }

    fn archive<'a>(&self, file: &'a FileAt) -> Result<zip::ZipArchive<Directory<'a>>> {
        open_zip(file, MOST_OF_DIRECTORY, |source| source).map_err(|e| self.unreadable(e))
    }

    fn tar(&mut self) -> Result<()> {
        let (mut entries, mut headers, mut bounds) = (Vec::new(), 0, Ok(()));
        let read = self.each(&mut |entry| {
            let header = entry.header();
            let text = |v: std::io::Result<u64>| v.map_or("unreadable".into(), |v| v.to_string());
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let link = entry.link_name_bytes().map(|l| String::from_utf8_lossy(&l).into_owned());
            let time = text(header.mtime());
            let user = String::from_utf8_lossy(header.username_bytes().unwrap_or_default()).into_owned();
            let owner = format!("{}:{} {user}", text(header.uid()), text(header.gid()));
            let mode = header.mode().unwrap_or_default();
            let shown = format!("type {:?}, mode {mode:o}", header.entry_type());
            let (sha256, size) = hash_reader(entry)?;
            let executable = mode & 0o111 != 0;
            let entry = Entry { link, time, owner, header: shown, executable, ..plain(name, size, sha256) };
            headers += entry.header_bytes();
            entries.push(entry);
            bounds = self.check_bounds(entries.len(), headers);
            if bounds.is_ok() { Ok(()) } else { Err(std::io::ErrorKind::FileTooLarge.into()) }
        });
        bounds.and(read)?;
        self.take(entries)
    }

    fn each(&self, visit: &mut dyn FnMut(&mut tar::Entry<'_, Gunzip>) -> std::io::Result<()>) -> Result<()> {
        let file = BufReader::with_capacity(1 << 18, fs_err::File::open(&self.path)?.into_file());
        let mut archive = tar::Archive::new(Guarded::new(flate2::bufread::GzDecoder::new(file)));
        for entry in archive.entries().map_err(|e| self.unreadable(e))? {
            let mut entry = entry.map_err(|e| self.unreadable(e))?;
            visit(&mut entry).map_err(|e| self.unreadable(e))?;
        }
        Ok(())
    }

    /// The contents of the members called `names`, on disk where they are packed.
    ///
    /// # Errors
    /// The archive is not what its list said, or the disk is full.
    pub fn contents(&self, names: &BTreeSet<&str>) -> Result<Contents> {
        let (mut left_out, mut sum) = (BTreeSet::new(), 0u64);
        let packed = !matches!(self.kind, "folder" | "file");
        for entry in self.entries.iter().filter(|e| packed && names.contains(e.name.as_str())) {
            sum = sum.saturating_add(entry.size);
            if sum > MOST {
                left_out.insert(entry.name.clone());
            }
        }
        let names: BTreeSet<&str> = names.iter().copied().filter(|n| !left_out.contains(*n)).collect();
        let mut places = BTreeMap::new();
        let mut spool = None;
        match self.kind {
            "zip" if !names.is_empty() => {
                let file = FileAt::new(fs_err::File::open(&self.path)?.into_file())?;
                let mut archive = self.archive(&file)?;
                let mut out = Spool::new()?;
                for (i, entry) in self.entries.iter().enumerate().filter(|(_, e)| names.contains(e.name.as_str())) {
                    let mut member = archive.by_index(i).map_err(|e| self.unreadable(e))?;
                    let place = out.take(&mut member, entry.size).map_err(|e| self.unreadable(e))?;
                    places.insert(entry.name.clone(), place);
                }
                spool = Some(out);
            }
            "tar.gz" if !names.is_empty() => {
                let mut out = Spool::new()?;
                self.each(&mut |entry| {
                    let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
                    if names.contains(name.as_str()) {
                        let size = entry.size();
                        places.insert(name, out.take(entry, size)?);
                    }
                    Ok(())
                })?;
                spool = Some(out);
            }
            "folder" => {
                for entry in self.entries.iter().filter(|e| names.contains(e.name.as_str()) && e.link.is_none()) {
                    places.insert(entry.name.clone(), Place::File(self.path.join(&entry.name)));
                }
            }
            "file" => places.extend(self.entries.iter().map(|e| (e.name.clone(), Place::File(self.path.clone())))),
            _ => {}
        }
        let spool = spool.map(|s| FileAt::new(s.file)).transpose()?.map(|f| Bytes::all(Arc::new(f)));
        Ok(Contents { places, spool, left_out })
    }
}

enum Place {
    File(PathBuf),
    Spool(std::ops::Range<u64>),
}

/// A file without a name that members are unpacked to.
struct Spool {
    file: std::fs::File,
    end: u64,
}

impl Spool {
    fn new() -> Result<Self> {
        Ok(Self { file: tempfile::tempfile()?, end: 0 })
    }

    fn take(&mut self, reader: &mut dyn Read, size: u64) -> std::io::Result<Place> {
        let start = self.end;
        self.end += std::io::copy(&mut reader.take(size), &mut self.file)?;
        Ok(Place::Spool(start..self.end))
    }
}

/// Contents of members, read when they are asked for.
pub struct Contents {
    places: BTreeMap<String, Place>,
    spool: Option<Bytes>,
    left_out: BTreeSet<String>,
}

impl Contents {
    /// The bytes of a member, which are none where it has no contents; `None` where they are too much.
    ///
    /// # Errors
    /// The world: the member's file cannot be opened.
    pub fn of(&self, name: &str) -> Result<Option<Bytes>> {
        if self.left_out.contains(name) {
            return Ok(None);
        }
        Ok(Some(match (self.places.get(name), &self.spool) {
            (Some(Place::File(path)), _) => Bytes::all(Arc::new(FileAt::new(fs_err::File::open(path)?.into_file())?)),
            (Some(Place::Spool(range)), Some(spool)) => spool.part(range.clone()),
            _ => Bytes::all(Arc::new(Vec::new())),
        }))
    }
}

type Gunzip = Guarded<flate2::bufread::GzDecoder<BufReader<std::fs::File>>>;

fn hash_file(path: &Path) -> Result<([u8; 32], u64)> {
    Ok(hash_reader(&mut fs_err::File::open(path)?)?)
}

fn plain(name: String, size: u64, sha256: [u8; 32]) -> Entry {
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
