//! ELF: needed libraries, run path, symbol versions (System V gABI; LSB symbol versioning), and the
//! proof that a class is really compiled in.

use std::collections::BTreeSet;

use object::elf::{self, FileHeader64, Sym64};
use object::read::elf::{Dyn, FileHeader, ProgramHeader, Rela, SectionHeader, SectionTable, Sym};
use object::{Endianness, ReadRef, SectionIndex};
use serde::Serialize;
use torchmill_bytes::marker::{self, Class, Hit};

use super::evidence::{Evidence, Uv};
use super::lens::{Lens, READ_BUDGET};
use super::uv;
use crate::error::{Error, Result};
use crate::wheel::{FileAt, ReadAt, slice};

type Header = FileHeader64<Endianness>;

/// A versioned symbol set that a file needs, such as `GLIBC_2.34` of `libc.so.6`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct VersionNeed {
    /// The library's soname.
    pub library: String,
    /// The version's name.
    pub version: String,
}

/// What matters here of a 64-bit ELF file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Elf {
    /// DT_SONAME: the name that others ask for it by.
    pub soname: Option<String>,
    /// DT_NEEDED: sonames of what is loaded with it, in order.
    pub needed: Vec<String>,
    /// DT_RPATH or DT_RUNPATH.
    pub run_path: Option<String>,
    /// Versions of symbols that it takes from other libraries.
    pub versions: BTreeSet<VersionNeed>,
    /// `e_machine` of the header: 62 is x86-64, 183 AArch64.
    pub machine: u16,
    /// Whether it asks for an executable stack (PT_GNU_STACK with PF_X). The C library loads no such library from 2.41 on.
    pub executable_stack: bool,
}

impl Elf {
    /// Whether `bytes` begin like an ELF file.
    pub fn is_elf(bytes: &[u8]) -> bool {
        bytes.starts_with(b"\x7fELF")
    }

    /// Reads the dynamic section and the version needs of `bytes`.
    ///
    /// # Errors
    /// If it is no 64-bit ELF file, or one with offsets or counts that point nowhere.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        Self::read(bytes).map_err(|e| Error::misuse("elf", format!("not a readable 64-bit ELF file: {e}")))
    }

    /// Reads the file at `path`: its headers and tables, not all of it.
    ///
    /// # Errors
    /// As [`Elf::parse`], or if the file cannot be read.
    pub fn of_file(path: &std::path::Path) -> Result<Self> {
        let file = FileAt::new(fs_err::File::open(path)?.into_file())?;
        Self::read(&Lens::new(&file, READ_BUDGET))
            .map_err(|e| Error::misuse("elf", format!("{} is not a readable 64-bit ELF file: {e}", path.display())))
    }

    /// The same for anything that `object` can read from.
    pub(super) fn read<'d, R: ReadRef<'d>>(data: R) -> object::read::Result<Self> {
        let header = Header::parse(data)?;
        let endian = header.endian()?;
        let sections = header.sections(endian, data)?;
        let mut out = Self { machine: header.e_machine(endian).0, ..Self::default() };
        // Of an object file, or of one whose beginning is all there is, nothing is asked.
        let segments = header.program_headers(endian, data).unwrap_or_default();
        out.executable_stack =
            segments.iter().any(|s| s.p_type(endian) == elf::PT_GNU_STACK && s.p_flags(endian).0 & elf::PF_X.0 != 0);
        if let Some((entries, link)) = sections.dynamic(endian, data)? {
            let strings = sections.strings(endian, data, SectionIndex(link.0))?;
            let text = |offset: u64| -> Option<String> {
                let bytes = strings.get(u32::try_from(offset).ok()?).ok()?;
                Some(String::from_utf8_lossy(bytes).into_owned())
            };
            for entry in entries {
                let value = entry.d_val(endian);
                match entry.tag(endian) {
                    elf::DT_NEEDED => out.needed.extend(text(value)),
                    elf::DT_SONAME => out.soname = text(value),
                    elf::DT_RPATH | elf::DT_RUNPATH => out.run_path = text(value),
                    _ => {}
                }
            }
        }
        for section in sections.iter() {
            if let Some((mut needs, link)) = section.gnu_verneed(endian, data)? {
                let strings = sections.strings(endian, data, link)?;
                while let Some((need, mut versions)) = needs.next()? {
                    let library = String::from_utf8_lossy(need.file(endian, strings)?).into_owned();
                    while let Some(version) = versions.next()? {
                        let version = String::from_utf8_lossy(version.name(endian, strings)?).into_owned();
                        out.versions.insert(VersionNeed { library: library.clone(), version });
                    }
                }
            }
        }
        Ok(out)
    }
}

/// A name of the e_machine values that wheels exist for.
pub(super) fn machine_name(machine: u16) -> String {
    match elf::Machine(machine) {
        elf::EM_X86_64 => "x86_64".into(),
        elf::EM_AARCH64 => "aarch64".into(),
        elf::EM_PPC64 => "ppc64le".into(),
        elf::EM_S390 => "s390x".into(),
        elf::EM_RISCV => "riscv64".into(),
        _ => format!("e_machine {machine}"),
    }
}

/// The machine of a 64-bit file of `size` bytes, by its first bytes; `None` where its tables lie past
/// the end, or it is another kind of file.
pub(super) fn whole(head: &[u8], size: u64) -> Option<u16> {
    let header = Header::parse(head).ok()?;
    let endian = header.endian().ok()?;
    let tables = [
        (header.e_phoff(endian), header.e_phnum(endian), header.e_phentsize(endian)),
        (header.e_shoff(endian), header.e_shnum(endian), header.e_shentsize(endian)),
    ];
    let inside = |(at, count, each): (u64, u16, u16)| {
        at.checked_add(u64::from(count) * u64::from(each)).is_some_and(|end| end <= size)
    };
    tables.into_iter().all(inside).then(|| header.e_machine(endian).0)
}

/// What `data` shows of `class`, given where its name was seen: a defined symbol, or type info that
/// the loader is told to point at the name. The name alone is no proof.
pub(super) fn evidence<'d, R: ReadRef<'d>>(
    data: R,
    source: &dyn ReadAt,
    class: Class,
    hits: &[Hit],
) -> object::read::Result<Vec<Evidence>> {
    let header = Header::parse(data)?;
    let endian = header.endian()?;
    let sections = header.sections(endian, data)?;
    let mut out = Vec::new();
    for name in marker::itanium_symbols(class) {
        if let Some(address) = find_symbol(data, source, endian, &sections, &name)? {
            out.push(Evidence::Symbol { name, address });
        }
    }
    if !out.is_empty() {
        return Ok(out);
    }
    // Stripped of its dynamic symbols (hidden visibility): the type info object holds a pointer to
    // the name, which the loader relocates; the linker wrote the name's address beside it.
    let names: Vec<u64> = hits
        .iter()
        .filter(|h| h.class == class && !h.msvc)
        .filter_map(|h| address_of(header, endian, data, h.offset))
        .collect();
    let relocations: Vec<_> = sections
        .iter()
        .filter_map(|s| s.rela(endian, data).transpose())
        .collect::<object::read::Result<Vec<_>>>()?
        .into_iter()
        .flat_map(|(r, _)| r)
        .collect();
    let dynamic = sections.symbols(endian, data, elf::SHT_DYNSYM)?;
    let of_type_info = |slot: u64| {
        relocations.iter().filter(|r| r.r_offset(endian) == slot).any(|r| {
            let symbol = r.r_sym(endian, false);
            let name =
                dynamic.symbol(object::SymbolIndex(symbol as usize)).and_then(|s| s.name(endian, dynamic.strings()));
            name.is_ok_and(|n| n.starts_with(b"_ZTVN10__cxxabiv1"))
        })
    };
    for r in &relocations {
        let target = r.r_addend.get(endian) as u64;
        // Before a name of internal linkage stands a `*`.
        if !names.iter().any(|&n| n == target || n.wrapping_sub(1) == target) {
            continue;
        }
        // A pointer to the text may be anybody's: type info has the ABI's own class before it.
        let slot = r.r_offset(endian);
        if of_type_info(slot.wrapping_sub(8)) {
            out.push(Evidence::TypeInfo { address: slot.wrapping_sub(8), name: target });
            break;
        }
    }
    Ok(out)
}

/// Where the section headers end, by the first bytes.
pub(super) fn headers_end(head: &[u8]) -> Option<u64> {
    let header = Header::parse(head).ok()?;
    let endian = header.endian().ok()?;
    let size = u64::from(header.e_shnum(endian)) * u64::from(header.e_shentsize(endian));
    header.e_shoff(endian).checked_add(size)
}

/// What the full symbol table alone shows of `class`, and which libuv is in it: for a file of which the end, where
/// patchelf moves the dynamic tables to, was not read.
pub(super) fn in_full_table<'d, R: ReadRef<'d>>(
    data: R,
    source: &dyn ReadAt,
    class: Class,
) -> object::read::Result<(u16, Vec<Evidence>, Option<Uv>)> {
    let header = Header::parse(data)?;
    let endian = header.endian()?;
    let sections = header.sections(endian, data)?;
    let mut out = Vec::new();
    for name in marker::itanium_symbols(class) {
        if let Some(address) = find_in_full_table(source, endian, &sections, &name)? {
            out.push(Evidence::Symbol { name, address });
        }
    }
    let uv = built_in(header, endian, data, |name| find_in_full_table(source, endian, &sections, name))?;
    Ok((header.e_machine(endian).0, out, uv))
}

/// The libuv that is compiled into `data`, or that it is.
pub(super) fn uv<'d, R: ReadRef<'d>>(data: R, source: &dyn ReadAt) -> object::read::Result<Option<Uv>> {
    let header = Header::parse(data)?;
    let endian = header.endian()?;
    let sections = header.sections(endian, data)?;
    built_in(header, endian, data, |name| find_symbol(data, source, endian, &sections, name))
}

/// The same, by addresses of symbols. A linker leaves `uv_version` out where nobody calls it.
fn built_in<'d, R: ReadRef<'d>>(
    header: &Header,
    endian: Endianness,
    data: R,
    find: impl Fn(&str) -> object::read::Result<Option<u64>>,
) -> object::read::Result<Option<Uv>> {
    let Some(address) = find("uv_version")? else {
        return Ok(find("uv_run")?.map(|_| Uv::built_in(None)));
    };
    let Some(offset) = offset_of(header, endian, data, address)? else { return Ok(None) };
    let code = data.read_bytes_at(offset, 24).unwrap_or_default();
    let version = uv::version_in_code(code, header.e_machine(endian) == elf::EM_AARCH64);
    Ok(version.map(|version| Uv::built_in(Some(version))))
}

/// Address of a defined symbol of the dynamic or the full table, by name.
fn find_symbol<'d, R: ReadRef<'d>>(
    data: R,
    source: &dyn ReadAt,
    endian: Endianness,
    sections: &SectionTable<'d, Header, R>,
    name: &str,
) -> object::read::Result<Option<u64>> {
    let dynamic = sections.symbols(endian, data, elf::SHT_DYNSYM)?;
    let versions = object::read::elf::VersionTable::default();
    for section in sections.iter() {
        // The loader's own way, a few reads; else each symbol in turn.
        if let Some((table, _)) = section.gnu_hash(endian, data)? {
            let hash = elf::gnu_hash(name.as_bytes());
            let found = table.find(endian, name.as_bytes(), hash, None, &dynamic, &versions);
            if let Some((_, symbol)) = found.filter(|(_, s)| s.st_shndx(endian).0 != 0) {
                return Ok(Some(symbol.st_value(endian)));
            }
        }
    }
    find_in_full_table(source, endian, sections, name)
}

/// Address of a defined symbol of the full table, by name. The tables of a large library are a
/// hundred megabytes: they are read in pieces, once each, and not kept.
fn find_in_full_table<'d, R: ReadRef<'d>>(
    source: &dyn ReadAt,
    endian: Endianness,
    sections: &SectionTable<'d, Header, R>,
    name: &str,
) -> object::read::Result<Option<u64>> {
    let Some(table) = sections.iter().find(|s| s.sh_type(endian) == elf::SHT_SYMTAB) else { return Ok(None) };
    let strings = sections.section(SectionIndex(table.sh_link(endian) as usize))?;
    let (Some((at, size)), Some((strings_at, strings_size))) = (table.file_range(endian), strings.file_range(endian))
    else {
        return Ok(None);
    };
    // Names may share their ends: what counts is that the name ends here, not how it begins.
    let needle = [name.as_bytes(), b"\0"].concat();
    let mut offsets = Vec::new();
    pieces(source, strings_at, strings_size, needle.len() - 1, |offset, bytes| {
        offsets.extend(memchr::memmem::find_iter(bytes, &needle).filter_map(|i| u32::try_from(offset + i as u64).ok()));
        None::<()>
    });
    if offsets.is_empty() {
        return Ok(None);
    }
    const ENTRY: usize = size_of::<Sym64<Endianness>>();
    Ok(pieces(source, at, size, 0, |_, bytes| {
        let count = bytes.len() / ENTRY;
        let (symbols, _) = object::pod::slice_from_bytes::<Sym64<Endianness>>(bytes, count).ok()?;
        let found = symbols.iter().find(|s| s.st_shndx(endian).0 != 0 && offsets.contains(&s.st_name(endian)));
        found.map(|s| s.st_value(endian))
    }))
}

/// Reads `size` bytes at `at` in pieces that overlap by `overlap`, each with its offset from `at`,
/// until `visit` finds something. The size of a piece is a multiple of that of a symbol.
fn pieces<T>(
    source: &dyn ReadAt,
    at: u64,
    size: u64,
    overlap: usize,
    mut visit: impl FnMut(u64, &[u8]) -> Option<T>,
) -> Option<T> {
    const PIECE: u64 = 24 << 14;
    let end = at.checked_add(size)?.min(source.size());
    let mut from = at;
    while from < end {
        let length = (end - from).min(PIECE);
        let bytes = slice(source, from, length)?;
        if let Some(found) = visit(from - at, &bytes) {
            return Some(found);
        }
        if from + length == end {
            break;
        }
        from += length - overlap as u64;
    }
    None
}

/// Where the byte at `offset` of the file is in memory.
fn address_of<'d, R: ReadRef<'d>>(header: &Header, endian: Endianness, data: R, offset: u64) -> Option<u64> {
    header.program_headers(endian, data).ok()?.iter().filter(|p| p.p_type(endian) == elf::PT_LOAD).find_map(|p| {
        let into = offset.checked_sub(p.p_offset(endian))?;
        (into < p.p_filesz(endian)).then(|| p.p_vaddr(endian).wrapping_add(into))
    })
}

/// Where the byte at `address` in memory is in the file.
fn offset_of<'d, R: ReadRef<'d>>(
    header: &Header,
    endian: Endianness,
    data: R,
    address: u64,
) -> object::read::Result<Option<u64>> {
    let segments = header.program_headers(endian, data)?;
    Ok(segments.iter().filter(|p| p.p_type(endian) == elf::PT_LOAD).find_map(|p| {
        let into = address.checked_sub(p.p_vaddr(endian))?;
        if into < p.p_filesz(endian) { p.p_offset(endian).checked_add(into) } else { None }
    }))
}

/// The bytes of the section called `name`: offset and size in the file.
pub(super) fn section_range<'d, R: ReadRef<'d>>(data: R, name: &str) -> object::read::Result<Option<(u64, u64)>> {
    let header = Header::parse(data)?;
    let endian = header.endian()?;
    let sections = header.sections(endian, data)?;
    Ok(sections.section_by_name(endian, name.as_bytes()).and_then(|(_, s)| s.file_range(endian)))
}
