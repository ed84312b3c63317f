//! Where the files of a torch or a package are: in a wheel or another archive, near or far, or in a folder.

use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use sha2::{Digest, Sha256};

use crate::error::{Context, Error, Result};
use crate::inspect::container::{self, Kind, Member, Want};
use crate::inspect::{FileAt, ReadAt, Remote, Symbols, symbols};

/// Bytes at the end of a far file that are kept: a wheel's directory, which is read again and again.
const TAIL: u64 = 2 << 20;
/// Bytes of one library, unpacked, at most.
const LARGEST: u64 = 8 << 30;

/// A far file whose end is fetched once.
struct Tail {
    inner: Remote,
    start: u64,
    end: OnceLock<Vec<u8>>,
}

impl Tail {
    fn new(inner: Remote) -> Self {
        Self { start: inner.size().saturating_sub(TAIL), inner, end: OnceLock::new() }
    }

    fn fetched(&self) -> io::Result<&[u8]> {
        if let Some(bytes) = self.end.get() {
            return Ok(bytes);
        }
        self.inner.expect(self.start..self.inner.size());
        let mut bytes = vec![0u8; usize::try_from(self.inner.size() - self.start).unwrap_or(0)];
        let mut done = 0;
        while done < bytes.len() {
            match self.inner.read_at(self.start + done as u64, &mut bytes[done..])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => done += n,
            }
        }
        Ok(self.end.get_or_init(|| bytes))
    }
}

impl ReadAt for Tail {
    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        match offset.checked_sub(self.start) {
            Some(into) => self.fetched()?.read_at(into, buffer),
            None => self.inner.read_at(offset, buffer),
        }
    }

    fn is_near(&self) -> bool {
        self.inner.is_near()
    }

    fn expect(&self, range: Range<u64>) {
        if range.start < self.start {
            self.inner.expect(range);
        }
    }
}

/// Takes a library: where it was, its images (none where it is for 32-bit machines alone), and its SHA-256 where it was
/// unpacked.
pub type EachLibrary<'a> = dyn FnMut(&Member, Vec<Symbols>, Option<[u8; 32]>) + 'a;

enum Place {
    Folder(PathBuf),
    Archive(Box<dyn ReadAt>, Kind),
}

/// The files of a package or a torch, wherever they are: a folder, a wheel, a Debian or conda package.
pub struct Holder {
    place: Place,
    members: Vec<Member>,
}

impl Holder {
    /// The archive in `source`: a wheel, a libtorch archive, a Debian or a conda package.
    ///
    /// # Errors
    /// Bad input: it is none, or is broken.
    pub fn archive(subject: &str, source: Box<dyn ReadAt>) -> Result<Self> {
        let Some(kind) = container::kind_of(source.as_ref()) else {
            return Err(Error::misuse("no-archive", format!("{subject} is no wheel and no other archive"))
                .next("name a wheel, an archive of libtorch, a folder, an https URL or pypi:NAME==VERSION"));
        };
        let mut inside = None;
        let members = container::visit(
            source.as_ref(),
            kind,
            // What a `.conda` file holds is in an archive of its own.
            &|m| if m.name.starts_with("pkg-") && m.name.ends_with(".tar.zst") { Want::All } else { Want::Nothing },
            &mut |_, content| {
                inside = Some(spill(content, &mut |_| {})?);
                Ok(std::ops::ControlFlow::Break(()))
            },
        )
        .doing(|| format!("reading {subject}"))?;
        if let Some(inside) = inside {
            return Self::archive(subject, Box::new(inside));
        }
        Ok(Self { place: Place::Archive(source, kind), members })
    }

    /// The archive at `url`, read by ranges.
    ///
    /// # Errors
    /// The world: it cannot be had. Bad input: it is no archive.
    pub fn far(subject: &str, url: &str) -> Result<Self> {
        Self::archive(subject, Box::new(Tail::new(Remote::open(crate::source::http_agent(), url)?)))
    }

    /// These files (relative, with `/`) of a folder; those that are not there are left out.
    pub fn folder(root: &Path, files: impl IntoIterator<Item = String>) -> Self {
        let size = |name: &String| std::fs::metadata(root.join(name)).ok().filter(std::fs::Metadata::is_file);
        let members = files.into_iter().filter_map(|name| Some(Member { size: size(&name)?.len(), name })).collect();
        Self { place: Place::Folder(root.to_owned()), members }
    }

    /// All files that it holds, with their sizes.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Whether reading one file after the other costs as much as each alone; else all that came before it is
    /// unpacked again each time.
    pub fn is_random(&self) -> bool {
        matches!(&self.place, Place::Folder(_) | Place::Archive(_, Kind::Zip))
    }

    /// Whether a library is read where it lies, without unpacking.
    pub fn is_folder(&self) -> bool {
        matches!(self.place, Place::Folder(_))
    }

    /// Shows the files of which `wanted` says so.
    ///
    /// # Errors
    /// If one cannot be read, or what `each` says.
    pub fn read(
        &self,
        wanted: &dyn Fn(&str) -> bool,
        each: &mut dyn FnMut(&Member, &mut dyn Read) -> Result<()>,
    ) -> Result<()> {
        match &self.place {
            Place::Folder(root) => {
                for member in self.members.iter().filter(|m| wanted(&m.name)) {
                    each(member, &mut fs_err::File::open(root.join(&member.name))?)?;
                }
            }
            Place::Archive(source, kind) => {
                let want = |m: &Member| if wanted(&m.name) { Want::All } else { Want::Nothing };
                container::visit(source.as_ref(), *kind, &want, &mut |member, content| {
                    each(member, content).doing(|| format!("reading '{}'", member.name))?;
                    Ok(std::ops::ControlFlow::Continue(()))
                })?;
            }
        }
        Ok(())
    }

    /// A text of which `wanted` knows the name.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn text(&self, wanted: &dyn Fn(&str) -> bool) -> Result<Option<String>> {
        let mut out = None;
        self.read(wanted, &mut |member, content| {
            out = Some(container::small_text(member, content)?);
            Ok(())
        })?;
        Ok(out)
    }

    /// The libraries of which `wanted` says so, with the SHA-256 of each that was unpacked. What is called a
    /// library and is none (a linker script, a text) is left out.
    ///
    /// # Errors
    /// If one cannot be read.
    pub fn libraries(&self, wanted: &dyn Fn(&str) -> bool, each: &mut EachLibrary<'_>) -> Result<()> {
        if let Place::Folder(root) = &self.place {
            for member in self.members.iter().filter(|m| wanted(&m.name)) {
                let file = FileAt::new(fs_err::File::open(root.join(&member.name))?.into_file())?;
                if let Some(found) = library(&member.name, &file)? {
                    each(member, found, None);
                }
            }
            return Ok(());
        }
        self.read(wanted, &mut |member, content| {
            let mut hash = Sha256::new();
            let file = spill(content, &mut |piece| hash.update(piece))?;
            if let Some(found) = library(&member.name, &file)? {
                each(member, found, Some(hash.finalize().into()));
            }
            Ok(())
        })
    }
}

fn spill(content: &mut dyn Read, seen: &mut (dyn FnMut(&[u8]) + Send)) -> Result<FileAt> {
    FileAt::spill(content, LARGEST, seen).map_err(|e| {
        if e.kind() == io::ErrorKind::StorageFull {
            return e.into();
        }
        Error::misuse("container", format!("not a readable archive: {e}"))
            .next("is the file complete? compare its size or digest with what it should be")
    })
}

fn library(name: &str, file: &FileAt) -> Result<Option<Vec<Symbols>>> {
    let magic = crate::inspect::slice(file, 0, file.size().min(8)).unwrap_or_default();
    // Mach-O for i386 or PowerPC is a library too, of which no image is read.
    if crate::inspect::format_of(&magic).is_none() && !crate::inspect::image_is_32_bit(file, 0) {
        return Ok(None);
    }
    symbols(file).map(Some).doing(|| format!("reading '{name}'"))
}
