//! One shared library, of whatever platform: what it needs, and what is really compiled into it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use serde::{Deserialize, Serialize};
use torchmill_bytes::marker::{Class, Hit, Scanner};

use super::elf::{self, Elf, VersionNeed};
use super::evidence::{Evidence, Linkage, Uv};
use super::lens::{Lens, READ_BUDGET};
use super::{fatbin, macho, pe};
use crate::error::{Error, Result};
use crate::wheel::{ReadAt, slice};

/// Executable formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Linux.
    Elf,
    /// Windows.
    Pe,
    /// macOS.
    MachO,
}

/// What is known of a library.
#[derive(Debug, Clone, Serialize)]
pub struct Library {
    /// Executable format.
    pub format: Format,
    /// `x86_64`, `aarch64`.
    pub machine: String,
    /// soname, install name or export name.
    pub name: Option<String>,
    /// Libraries that it loads.
    pub needed: Vec<String>,
    /// RPATH, RUNPATH, LC_RPATH.
    pub run_path: Vec<String>,
    /// Symbol versions that it takes from others (ELF).
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub versions: BTreeSet<VersionNeed>,
    /// Oldest macOS that it runs on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_os: Option<String>,
    /// Classes whose names are in it. For the store this is a hint; [`Library::store`] is proof.
    pub classes: BTreeSet<Class>,
    /// Proof that the libuv store is compiled in; empty where it is not.
    pub store: Vec<Evidence>,
    /// The libuv that is linked in, or that it needs.
    pub uv: Option<Uv>,
    /// Whether it asks for an executable stack (ELF): the C library loads no such library from 2.41 on.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub executable_stack: bool,
    /// GPU code by kind and architecture: `cubin sm_90`, `ptx compute_90`, with the number of images.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub gpu: BTreeMap<String, u64>,
}

/// A window of another source.
pub(super) struct Part<'a> {
    pub(super) of: &'a dyn ReadAt,
    pub(super) start: u64,
    pub(super) size: u64,
}

impl ReadAt for Part<'_> {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let n = buffer.len().min(left);
        self.of.read_at(self.start.saturating_add(offset), &mut buffer[..n])
    }
}

/// Whether a file that begins with `magic` is a library that can be read here.
pub fn format_of(magic: &[u8]) -> Option<Format> {
    match magic {
        [0x7f, b'E', b'L', b'F', ..] => Some(Format::Elf),
        [b'M', b'Z', ..] => Some(Format::Pe),
        [0xcf, 0xfa, 0xed, 0xfe, ..] | [0xca, 0xfe, 0xba, 0xbe | 0xbf, ..] => Some(Format::MachO),
        _ => None,
    }
}

/// Reads the library in `source`: one, or one for each architecture of a fat file.
///
/// # Errors
/// If it is no library, or one that is cut off or has tables that point nowhere.
pub fn read(source: &dyn ReadAt) -> Result<Vec<Library>> {
    read_scanned(source, &scan(source)?)
}

/// Looks for class names in all of `source`.
///
/// # Errors
/// If it cannot be read.
pub fn scan(source: &dyn ReadAt) -> Result<Vec<Hit>> {
    let mut scanner = Scanner::new();
    let mut buffer = vec![0u8; 1 << 18];
    let mut at = 0;
    loop {
        let n = source.read_at(at, &mut buffer).map_err(|e| Error::world("read", e.to_string()))?;
        if n == 0 {
            break;
        }
        scanner.feed(&buffer[..n]);
        at += n as u64;
    }
    Ok(scanner.finish())
}

/// The same where the names were looked for already.
///
/// # Errors
/// As [`read`].
pub fn read_scanned(source: &dyn ReadAt, hits: &[Hit]) -> Result<Vec<Library>> {
    let magic = slice(source, 0, source.size().min(8)).unwrap_or_default();
    let Some(format) = format_of(&magic) else {
        return Err(Error::misuse("no-library", "neither ELF nor PE nor Mach-O"));
    };
    let unreadable = |e| unreadable(format, e);
    if magic.starts_with(&[0xca, 0xfe]) {
        let images = {
            let cache = Lens::new(source, READ_BUDGET);
            macho::fat_images(&cache).map_err(unreadable)?
        };
        let mut out = Vec::new();
        for (start, size) in images {
            let end = start.checked_add(size).filter(|end| *end <= source.size());
            let Some(end) = end else {
                return Err(Error::misuse("library", "an image of this fat file lies past the file's end"));
            };
            if image_is_32_bit(source, start) {
                continue; // of a universal library; images_not_read names it
            }
            let inside: Vec<Hit> = hits
                .iter()
                .filter(|h| (start..end).contains(&h.offset))
                .map(|h| Hit { offset: h.offset - start, ..*h })
                .collect();
            out.push(one(&Part { of: source, start, size }, Format::MachO, &inside).map_err(unreadable)?);
        }
        if out.is_empty() {
            return Err(Error::misuse("library", "not a readable 64-bit Mach-O file: all of its images are 32-bit"));
        }
        return Ok(out);
    }
    Ok(vec![one(source, format, hits).map_err(unreadable)?])
}

/// Whether what begins at `start` is a 32-bit Mach-O image, as old universal libraries have for i386.
pub fn image_is_32_bit(source: &dyn ReadAt, start: u64) -> bool {
    slice(source, start, 4).is_some_and(|magic| magic == [0xce, 0xfa, 0xed, 0xfe] || magic == [0xfe, 0xed, 0xfa, 0xce])
}

/// The images of a fat file that are not read here: 32-bit ones, which no torch has been for since 2018.
pub(super) fn images_not_read(source: &dyn ReadAt) -> Vec<&'static str> {
    if slice(source, 0, 2).is_none_or(|magic| magic != [0xca, 0xfe]) {
        return Vec::new();
    }
    let cache = Lens::new(source, READ_BUDGET);
    let images = macho::fat_images(&cache).unwrap_or_default();
    images.iter().filter(|(start, _)| image_is_32_bit(source, *start)).map(|_| "32-bit (i386)").collect()
}

/// What a library that cannot be read ends in.
pub(super) fn unreadable(format: Format, e: object::read::Error) -> Error {
    let name = match format {
        Format::Elf => "ELF",
        Format::Pe => "PE",
        Format::MachO => "Mach-O",
    };
    Error::misuse("library", format!("not a readable 64-bit {name} file: {e}"))
        .next("is the file complete? compare its size or digest with what it should be")
}

/// What is known of a library of `size` bytes that nowhere holds the name of c10d's libuv store, by the
/// names that it holds (`hits`) and by its first bytes alone: its format and machine, and that the store
/// has no libuv. `None` where the first bytes do not tell, or the name is there.
pub fn read_unnamed(head: &[u8], size: u64, hits: &[Hit]) -> Option<Library> {
    let format = format_of(head)?;
    let mut library = Library::new(format, hits);
    if library.classes.contains(&Class::LibuvStore) {
        return None;
    }
    // Sections that lie past the end, or tables that are further back, are for who can read everything.
    library.machine = match format {
        Format::Elf => elf::machine_name(elf::whole(head, size)?),
        Format::Pe => machine(pe::whole(head, size)?),
        Format::MachO => {
            let file = macho::read(head).ok()?;
            library.needed = file.needed;
            library.name = file.name;
            library.run_path = file.run_paths;
            library.min_os = file.min_os;
            machine(file.aarch64)
        }
    };
    Some(library)
}

pub(super) use torchmill_bytes::inflate::HEAD;

/// Where the part of a library of `size` bytes ends that can hold proof of a class, by its first bytes. What
/// follows has another use, which the format fixes: relocations and unwinding (PE), the signature (Mach-O); or it is
/// what patchelf moves behind the section headers (ELF), which [`read_front`] does without where it can.
pub(super) fn proof_end(head: &[u8], size: u64) -> u64 {
    let end = match format_of(head) {
        Some(Format::Elf) => elf::headers_end(head),
        Some(Format::Pe) => pe::data_end(head),
        Some(Format::MachO) => macho::signature(head).filter(|(at, length)| at + length == size).map(|(at, _)| at),
        None => None,
    };
    end.unwrap_or(size).max(head.len() as u64).min(size)
}

/// What is known of the library of which `source` has as much as [`proof_end`] said. `None` where that is too
/// little to tell: an ELF file whose full symbol table does not show the libuv store and a libuv.
pub(super) fn read_front(source: &dyn ReadAt, hits: &[Hit]) -> Result<Option<Vec<Library>>> {
    let magic = slice(source, 0, source.size().min(8)).unwrap_or_default();
    if format_of(&magic) != Some(Format::Elf) {
        return read_scanned(source, hits).map(Some);
    }
    let cache = Lens::new(source, READ_BUDGET);
    let Ok((machine, store, uv)) = elf::in_full_table(&cache, source, Class::LibuvStore) else { return Ok(None) };
    if store.is_empty() || uv.is_none() {
        return Ok(None);
    }
    let machine = elf::machine_name(machine);
    Ok(Some(vec![Library { machine, store, uv, ..Library::new(Format::Elf, hits) }]))
}

pub(super) fn machine(aarch64: bool) -> String {
    if aarch64 { "aarch64".to_owned() } else { "x86_64".to_owned() }
}

impl Library {
    fn new(format: Format, hits: &[Hit]) -> Self {
        Self {
            format,
            machine: String::new(),
            name: None,
            needed: Vec::new(),
            run_path: Vec::new(),
            versions: BTreeSet::new(),
            min_os: None,
            classes: hits.iter().map(|h| h.class).collect(),
            store: Vec::new(),
            uv: None,
            executable_stack: false,
            gpu: BTreeMap::new(),
        }
    }
}

fn one(source: &dyn ReadAt, format: Format, hits: &[Hit]) -> object::read::Result<Library> {
    let cache = Lens::new(source, READ_BUDGET);
    let mut library = Library::new(format, hits);
    let named = library.classes.contains(&Class::LibuvStore);
    match format {
        Format::Elf => {
            let elf = Elf::read(&cache)?;
            library.machine = elf::machine_name(elf.machine);
            library.name = elf.soname;
            library.needed = elf.needed;
            library.run_path = elf.run_path.iter().flat_map(|p| p.split(':')).map(str::to_owned).collect();
            library.versions = elf.versions;
            library.executable_stack = elf.executable_stack;
            if named {
                library.store = elf::evidence(&cache, source, Class::LibuvStore, hits)?;
            }
            library.uv = elf::uv(&cache, source)?;
            for name in [".nv_fatbin", "__nv_relfatbin"] {
                if let Some((offset, size)) = elf::section_range(&cache, name)? {
                    fatbin::count(&Part { of: source, start: offset, size }, &mut library.gpu);
                }
            }
        }
        Format::Pe => {
            let pe = pe::read(&cache, source)?;
            library.machine = machine(pe.aarch64);
            library.name = pe.name;
            library.needed = pe.needed;
            if named {
                library.store = pe::evidence(&cache, source, Class::LibuvStore, hits)?;
            }
            library.uv = pe::uv_version(&cache, source)?;
            for name in [".nv_fatb", ".nv_fatbin"] {
                if let Some((offset, size)) = pe::section_range(&cache, name)? {
                    fatbin::count(&Part { of: source, start: offset, size }, &mut library.gpu);
                }
            }
        }
        Format::MachO => {
            let file = macho::read(&cache)?;
            library.machine = machine(file.aarch64);
            library.name = file.name;
            library.needed = file.needed;
            library.run_path = file.run_paths;
            library.min_os = file.min_os;
            if named {
                library.store = macho::evidence(&cache, Class::LibuvStore)?;
            }
            library.uv = macho::uv(&cache)?;
        }
    }
    // A libuv that is a library of its own says its version itself; here it is only loaded.
    let is_uv = library.name.as_deref().is_some_and(is_libuv);
    match &mut library.uv {
        Some(uv) if is_uv => uv.linkage = Linkage::Shared,
        Some(_) => {}
        None if library.needed.iter().any(|n| is_libuv(n)) => {
            library.uv = Some(Uv { version: None, linkage: Linkage::Shared });
        }
        None => {}
    }
    Ok(library)
}

/// Whether a library of this name is libuv.
pub fn is_libuv(name: &str) -> bool {
    let file = name.rsplit(['/', '\\']).next().unwrap_or(name).to_ascii_lowercase();
    let stem = file.split(['.', '-']).next().unwrap_or("");
    stem == "uv" || stem == "libuv"
}

/// Whether every system of that kind has the library `name`. Not those of drivers: a machine need not have them.
pub fn on_every_system(format: Format, name: &str) -> bool {
    let file = name.rsplit('/').next().unwrap_or(name);
    match format {
        Format::Elf => {
            const SYSTEM: &[&str] = &[
                "libc.so",
                "libm.so",
                "libdl.so",
                "librt.so",
                "libpthread.so",
                "libgcc_s.so",
                "libstdc++.so",
                "libutil.so",
                "ld-linux",
                "libresolv.so",
                "libmvec.so",
                "libanl.so",
                "libnsl.so.1",
            ];
            SYSTEM.iter().any(|s| file.starts_with(s))
        }
        Format::MachO => name.starts_with("/usr/lib/") || name.starts_with("/System/"),
        Format::Pe => {
            const SYSTEM: &[&str] = &[
                "kernel32",
                "user32",
                "advapi32",
                "ws2_32",
                "shell32",
                "ole32",
                "oleaut32",
                "iphlpapi",
                "psapi",
                "userenv",
                "dbghelp",
                "bcrypt",
                "ntdll",
                "crypt32",
                "shlwapi",
                "mswsock",
                "powrprof",
                "secur32",
                "version",
                "rpcrt4",
                "ucrtbase",
                "vcruntime",
                "msvcp",
                "vcomp",
                "concrt",
                "api-ms-",
                "ext-ms-",
                "python3",
                "msvcrt",
                "gdi32",
                "winmm",
                "dxgi",
                "d3d11",
                "d3d12",
                "setupapi",
                "pdh",
                "ncrypt",
                "winhttp",
                "comctl32",
                "imm32",
                "dnsapi",
            ];
            let lower = file.to_ascii_lowercase();
            SYSTEM.iter().any(|s| lower.starts_with(s))
        }
    }
}
