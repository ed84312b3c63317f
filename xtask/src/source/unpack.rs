//! Unpacking archives that may be hostile: no path outside, no device nodes, no link out, no
//! member twice, nothing above the bounds. What comes out are real files and folders only: CMake
//! installs trip over links inside `third_party`, and Windows has none.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, Write};
use std::path::{Component, Path, PathBuf};

use crate::error::{Context, Error, Result};
use crate::platform;
use crate::wheel::{FileAt, open_zip, read_up_to};

use super::deb;
use super::tarball::{Guarded, xz};

/// Bytes of a member's path, and folders in it.
pub(super) const LONGEST_PATH: usize = 4096;
pub(super) const DEEPEST_PATH: usize = 64;
/// Links of an archive: where they lead is in memory until all files are there.
const MOST_LINKS: usize = 20_000;
/// Bytes of a zip archive's directory.
const MOST_OF_DIRECTORY: u64 = 64 << 20;
/// What may follow the end of a tar: tools pad archives to the size of a tape's record.
const MAX_PADDING: u64 = 1 << 20;

/// How much an archive may unpack to.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Bytes, all members together.
    pub bytes: u64,
    /// Files, folders and links together.
    pub members: u64,
}

/// Which members go where.
#[derive(Debug, Clone)]
pub struct Target {
    /// Folder that the members go to; it may exist.
    pub dir: PathBuf,
    /// Leading path segments to drop; members with fewer are left out.
    pub strip: usize,
    /// Only members below this folder (after `strip`), which is dropped as well.
    pub only: Option<String>,
    /// If not empty: of those, only these files and the folders that end with `/`.
    pub keep: Vec<String>,
}

impl Target {
    /// Everything, as it is, into `dir`.
    pub fn all(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), strip: 0, only: None, keep: Vec::new() }
    }

    /// Where the member called `path` goes, if it goes anywhere.
    fn place(&self, path: &[String]) -> Option<PathBuf> {
        let mut rest = path.get(self.strip..)?;
        if let Some(only) = self.only.as_deref().filter(|o| !o.is_empty()) {
            for segment in only.split('/') {
                let (first, others) = rest.split_first()?;
                if first != segment {
                    return None;
                }
                rest = others;
            }
        }
        let kept = self.keep.is_empty() || {
            let name = rest.join("/");
            self.keep.iter().any(|k| name == *k || (k.ends_with('/') && name.starts_with(k)))
        };
        (kept && !rest.is_empty()).then(|| rest.iter().collect())
    }
}

/// What was unpacked.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Unpacked {
    /// Regular files that were written; links and folders do not count.
    pub files: u64,
    /// Bytes written.
    pub bytes: u64,
}

/// Unpacks the archive at `archive` (tar, plain or with gz, xz, bz2, zst; zip and wheels) into
/// `targets`. `what` names it in messages. Files get the modification time `epoch`.
///
/// # Errors
/// The archive is broken, above `bounds`, or holds what none of ours may: a path or a link that leads out, a device, a
/// member twice.
pub fn unpack(archive: &Path, what: &str, targets: &[Target], bounds: Bounds, epoch: i64) -> Result<Unpacked> {
    let mut file = File::from(fs_err::File::open(archive)?);
    let mut magic = [0u8; 265];
    let n = read_up_to(&mut file, &mut magic)?;
    file.rewind()?;
    let magic = &magic[..n];
    let mut sink = Sinkhole {
        what,
        targets,
        bounds,
        epoch,
        seen: HashSet::new(),
        links: BTreeMap::new(),
        done: Unpacked::default(),
        members: 0,
    };
    let result = if magic.starts_with(b"PK\x03\x04") || magic.starts_with(b"PK\x05\x06") {
        sink.zip(file)
    } else if magic.starts_with(deb::MAGIC) {
        sink.deb(file)
    } else {
        sink.compressed_tar(magic, BufReader::new(file))
    };
    result.and_then(|()| sink.materialize_links()).doing(|| format!("unpacking {what}"))?;
    Ok(sink.done)
}

struct Sinkhole<'a> {
    what: &'a str,
    targets: &'a [Target],
    bounds: Bounds,
    epoch: i64,
    seen: HashSet<PathBuf>,
    /// Link → target, both as segments in the archive: made real when all files are there.
    links: BTreeMap<Vec<String>, Vec<String>>,
    done: Unpacked,
    members: u64,
}

impl Sinkhole<'_> {
    fn hostile(&self, member: &str, why: &str) -> Error {
        Error::misuse("archive-unsafe", format!("{}: the member '{member}' {why}", self.what))
            .next("do not use this archive; if it is what it should be, report it to whoever made it")
    }

    fn compressed_tar(&mut self, magic: &[u8], reader: impl BufRead) -> Result<()> {
        if magic.starts_with(&[0x1f, 0x8b]) {
            self.tar(flate2::bufread::MultiGzDecoder::new(reader))
        } else if magic.starts_with(&[0xfd, b'7', b'z', b'X', b'Z', 0]) {
            self.tar(xz(reader)?)
        } else if magic.starts_with(b"BZh") {
            self.tar(bzip2::bufread::MultiBzDecoder::new(reader))
        } else if magic.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            self.tar(zstd::Decoder::with_buffer(reader)?)
        } else if magic.get(257..262) == Some(b"ustar") {
            self.tar(reader)
        } else {
            Err(Error::misuse(
                "archive",
                format!(
                    "{} is no archive that is known here (tar with gz, xz, bz2, zst or plain; zip; whl; deb)",
                    self.what
                ),
            ))
        }
    }

    /// The files of a Debian package: the member `data.tar.*` of an ar archive (deb(5)).
    fn deb(&mut self, reader: impl Read) -> Result<()> {
        let mut reader = BufReader::new(deb::data_tar(reader).map_err(|e| self.broken(&e))?);
        let magic = reader.fill_buf().map_err(|e| self.broken(&e))?.iter().copied().take(265).collect::<Vec<u8>>();
        self.compressed_tar(&magic, reader)
    }

    fn tar(&mut self, reader: impl Read) -> Result<()> {
        let mut archive = tar::Archive::new(Guarded::new(reader));
        let entries = archive.entries().map_err(|e| self.broken(&e))?;
        for entry in entries {
            platform::check_cancelled()?;
            let mut entry = entry.map_err(|e| self.broken(&e))?;
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let kind = entry.header().entry_type();
            use tar::EntryType as T;
            match kind {
                T::XGlobalHeader | T::XHeader | T::GNULongName | T::GNULongLink => continue,
                T::Directory => {
                    let path = self.segments(&name)?;
                    self.directory(&path, &name)?;
                }
                T::Regular | T::Continuous | T::GNUSparse => {
                    let path = self.segments(&name)?;
                    let executable = entry.header().mode().is_ok_and(|m| m & 0o111 != 0);
                    self.file(&path, &name, &mut entry, executable)?;
                }
                T::Symlink | T::Link => {
                    let path = self.segments(&name)?;
                    let target = entry
                        .link_name_bytes()
                        .map(|t| String::from_utf8_lossy(&t).into_owned())
                        .ok_or_else(|| self.hostile(&name, "is a link to nothing"))?;
                    self.link(path, &name, &target, kind == T::Symlink)?;
                }
                _ => return Err(self.hostile(&name, "is a device node, FIFO or of an unknown kind")),
            }
        }
        // The end of the tar is not the end of the stream: its check sum comes last.
        let mut rest = archive.into_inner().take(MAX_PADDING + 1);
        match io::copy(&mut rest, &mut io::sink()) {
            Ok(n) if n > MAX_PADDING => Err(self.broken(&"there is much more after the end of the archive")),
            Ok(_) => Ok(()),
            Err(e) => Err(self.broken(&e)),
        }
    }

    fn zip(&mut self, file: File) -> Result<()> {
        let file = FileAt::new(file)?;
        let mut archive = open_zip(&file, MOST_OF_DIRECTORY, BufReader::new).map_err(|e| self.broken(&e))?;
        for i in 0..archive.len() {
            platform::check_cancelled()?;
            let mut entry = archive.by_index(i).map_err(|e| self.broken(&e))?;
            let name = entry.name().map_err(|e| self.broken(&e))?.into_owned();
            let path = self.segments(&name)?;
            if name.ends_with('/') {
                self.directory(&path, &name)?;
            } else if entry.is_symlink() {
                let mut target = String::new();
                entry.by_ref().take(4096).read_to_string(&mut target).map_err(|e| self.broken(&e))?;
                drop(entry);
                self.link(path, &name, &target, true)?;
            } else {
                let executable = entry.unix_mode().is_some_and(|m| m & 0o111 != 0);
                self.file(&path, &name, &mut entry, executable)?;
            }
        }
        Ok(())
    }

    fn broken(&self, e: &dyn std::fmt::Display) -> Error {
        Error::misuse("archive-broken", format!("{} is broken: {e}", self.what))
    }

    /// Whether `path` is one that a file system could have.
    fn check_path(&self, name: &str, path: &str) -> Result<()> {
        if path.len() <= LONGEST_PATH && path.split('/').count() <= DEEPEST_PATH {
            return Ok(());
        }
        let shown: String = name.chars().take(40).collect();
        let why = format!("has a path of more than {LONGEST_PATH} bytes or {DEEPEST_PATH} folders");
        Err(self.hostile(&shown, &why))
    }

    /// The safe segments of a member's name.
    fn segments(&mut self, name: &str) -> Result<Vec<String>> {
        self.members += 1;
        if self.members > self.bounds.members {
            return Err(self
                .hostile(name, &format!("is beyond the recipe's bound of {} members", self.bounds.members))
                .next("raise limits.members in the recipe if this archive is right"));
        }
        self.check_path(name, name)?;
        if name.contains('\0') || name.contains('\\') {
            return Err(self.hostile(name, "has a backslash or NUL in its name"));
        }
        let mut out = Vec::new();
        for component in Path::new(name).components() {
            match component {
                Component::Normal(s) => out.push(s.to_string_lossy().into_owned()),
                Component::CurDir => {}
                Component::ParentDir => return Err(self.hostile(name, "climbs out with '..'")),
                Component::RootDir | Component::Prefix(_) => return Err(self.hostile(name, "has an absolute path")),
            }
        }
        Ok(out)
    }

    fn directory(&mut self, path: &[String], name: &str) -> Result<()> {
        for target in self.targets {
            if let Some(place) = target.place(path) {
                self.make_parents(&target.dir, &place.join("x"), name)?;
            }
        }
        Ok(())
    }

    fn make_parents(&self, root: &Path, place: &Path, name: &str) -> Result<()> {
        if let Some(parent) = place.parent() {
            fs_err::create_dir_all(root.join(parent)).map_err(|e| match e.kind() {
                io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
                    self.hostile(name, "goes through a file as if it were a folder")
                }
                _ => e.into(),
            })?;
        }
        Ok(())
    }

    /// The file `full` is there already: another source put it there, or this archive did, under a name that the
    /// file system takes for the same.
    fn taken(&self, name: &str, full: &Path) -> Error {
        let lower = |path: &Path| path.to_string_lossy().to_lowercase();
        if let Some(other) = self.seen.iter().find(|other| *other != full && lower(other) == lower(full)) {
            let what = format!(
                "{}: '{name}' differs from {} only in upper and lower case, which this file system does not tell apart",
                self.what,
                other.display()
            );
            return Error::misuse("collision", what)
                .next("put the store on a file system that does: a case-sensitive APFS volume on macOS; on Windows `fsutil file setCaseSensitiveInfo DIR enable`");
        }
        let what =
            format!("{}: '{name}' would overwrite {}, which another source put there", self.what, full.display());
        Error::misuse("collision", what).next("change 'into' of one of the two sources in the recipe")
    }

    fn file(&mut self, path: &[String], name: &str, content: &mut impl Read, executable: bool) -> Result<()> {
        let mut first: Option<PathBuf> = None;
        for target in self.targets {
            let Some(place) = target.place(path) else { continue };
            self.make_parents(&target.dir, &place, name)?;
            let full = target.dir.join(&place);
            if !self.seen.insert(full.clone()) {
                return Err(self.hostile(name, "is in the archive twice: the second would overwrite the first"));
            }
            let mut out =
                fs_err::OpenOptions::new().write(true).create_new(true).open(&full).map_err(|e| match e.kind() {
                    io::ErrorKind::AlreadyExists => self.taken(name, &full),
                    _ => e.into(),
                })?;
            if let Some(first) = &first {
                io::copy(&mut fs_err::File::open(first)?, &mut out)?;
            } else {
                self.copy(content, &mut out, name)?;
            }
            self.done.files += 1;
            self.settle(out.into_file(), &full, executable)?;
            first = Some(full);
        }
        Ok(())
    }

    fn copy(&mut self, content: &mut impl Read, out: &mut impl Write, name: &str) -> Result<()> {
        let mut buffer = [0u8; 1 << 16];
        loop {
            let n = content.read(&mut buffer).map_err(|e| self.broken(&e))?;
            if n == 0 {
                return Ok(());
            }
            self.done.bytes += n as u64;
            if self.done.bytes > self.bounds.bytes {
                return Err(self
                    .hostile(
                        name,
                        &format!("takes it beyond the recipe's bound of {} MiB unpacked", self.bounds.bytes >> 20),
                    )
                    .next("raise limits.unpacked in the recipe if this archive is right"));
            }
            out.write_all(&buffer[..n])?;
        }
    }

    fn settle(&self, file: File, path: &Path, executable: bool) -> Result<()> {
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(u64::try_from(self.epoch).unwrap_or(0));
        file.set_modified(time)?;
        drop(file);
        platform::mark_executable(path, executable)
    }

    fn link(&mut self, path: Vec<String>, name: &str, target: &str, symbolic: bool) -> Result<()> {
        self.check_path(name, target)?;
        if self.links.len() >= MOST_LINKS {
            return Err(self.hostile(name, &format!("is one of more than {MOST_LINKS} links")));
        }
        // A symbolic link starts in its own folder, a hard link at the archive's root.
        let mut to: Vec<String> = if symbolic { path[..path.len().saturating_sub(1)].to_vec() } else { Vec::new() };
        // Packages of a system link to its other folders: what nobody asked for harms nobody.
        let wanted = self.targets.iter().any(|t| t.place(&path).is_some());
        for component in Path::new(target).components() {
            match component {
                Component::Normal(s) => to.push(s.to_string_lossy().into_owned()),
                Component::CurDir => {}
                Component::ParentDir => {
                    if to.pop().is_none() {
                        if !wanted {
                            return Ok(());
                        }
                        return Err(self.hostile(name, &format!("is a link that leaves the archive ('{target}')")));
                    }
                }
                Component::RootDir | Component::Prefix(_) if !wanted => return Ok(()),
                Component::RootDir | Component::Prefix(_) => {
                    return Err(self.hostile(name, &format!("is a link to an absolute path ('{target}')")));
                }
            }
        }
        if self.links.insert(path, to).is_some() {
            return Err(self.hostile(name, "is in the archive twice: the second would overwrite the first"));
        }
        Ok(())
    }

    /// Replaces links by copies of what they point to. Links to nothing are left out.
    fn materialize_links(&mut self) -> Result<()> {
        let links = std::mem::take(&mut self.links);
        for target in self.targets {
            for (path, to) in &links {
                let (Some(place), Some(mut from)) = (target.place(path), target.place(to)) else { continue };
                // A link to a link: follow, a bounded number of times.
                let mut hop = to.clone();
                for _ in 0..16 {
                    match links.get(&hop) {
                        Some(next) => hop.clone_from(next),
                        None => break,
                    }
                }
                if let Some(f) = target.place(&hop) {
                    from = f;
                }
                let (from, full) = (target.dir.join(from), target.dir.join(&place));
                if !from.exists() || full.starts_with(&from) || full.exists() {
                    continue;
                }
                self.make_parents(&target.dir, &place, &place.display().to_string())?;
                for entry in walkdir::WalkDir::new(&from).sort_by_file_name() {
                    let entry = entry.map_err(|e| Error::world("io", e.to_string()))?;
                    let to = full.join(entry.path().strip_prefix(&from).unwrap_or(Path::new("")));
                    let to = if entry.path() == from { full.clone() } else { to };
                    if entry.file_type().is_dir() {
                        fs_err::create_dir_all(&to)?;
                        continue;
                    }
                    let mut input = fs_err::File::open(entry.path())?;
                    let mut out = fs_err::OpenOptions::new().write(true).create_new(true).open(&to)?;
                    self.copy(&mut input, &mut out, &to.display().to_string())?;
                    let executable = is_executable(entry.path());
                    self.done.files += 1;
                    self.settle(out.into_file(), &to, executable)?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(unix)]
fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|m| m.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_executable(_path: &Path) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_differ_only_in_case_are_two_files_or_a_clear_error() {
        let dir = tempfile::tempdir().unwrap();
        let archive = dir.path().join("a.tar");
        let mut tar = tar::Builder::new(File::create(&archive).unwrap());
        for name in ["x/Config.h", "x/config.h"] {
            let mut header = tar::Header::new_gnu();
            header.set_size(name.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, name, name.as_bytes()).unwrap();
        }
        tar.finish().unwrap();
        drop(tar);
        let to = dir.path().join("to");
        let bounds = Bounds { bytes: 1 << 20, members: 10 };
        match unpack(&archive, "the archive", &[Target::all(&to)], bounds, 0) {
            Ok(done) => {
                assert_eq!(done.files, 2);
                assert_eq!(std::fs::read_to_string(to.join("x/Config.h")).unwrap(), "x/Config.h");
            }
            // Windows, macOS: the first file is as it was.
            Err(e) => {
                assert!(e.what().contains("only in upper and lower case"), "{}", e.what());
                assert_eq!(std::fs::read_to_string(to.join("x/config.h")).unwrap(), "x/Config.h");
            }
        }
    }
}
