//! What a library gives to others and takes from them: exported and undefined symbols, needed libraries,
//! versions of symbols. As a loader would look them up, for ELF, PE and Mach-O.

use std::collections::BTreeSet;

use object::elf::{self, FileHeader32, FileHeader64};
use object::macho::{self, MachHeader64};
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader, Sym};
use object::read::macho::{LoadCommandVariant, MachHeader, Nlist};
use object::read::pe::{Import as PeImport, PeFile64, optional_header_magic};
use object::{Endianness, LittleEndian as LE, ReadRef, SymbolIndex};

use super::elf::{Elf, VersionNeed, machine_name};
use super::lens::{Lens, READ_BUDGET};
use super::library::{Format, Part, format_of, image_is_32_bit, machine, unreadable};
use crate::error::{Error, Result};
use crate::wheel::{ReadAt, slice};

/// A symbol that a library takes from others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    /// Its name, mangled; `#17` where a DLL asks by ordinal.
    pub name: String,
    /// The library that must have it, where the format says so: a DLL, a dylib, the file that an ELF
    /// version belongs to. `None`: whichever of the loaded ones has it.
    pub from: Option<String>,
    /// The symbol's version (ELF).
    pub version: Option<String>,
}

/// Names, sorted, in one piece of memory: a torch exports a hundred thousand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    text: String,
    starts: Vec<u32>,
}

impl Names {
    /// Sorts `names`. Those with a line break in them, which no compiler makes, are left out.
    pub fn new<'a>(names: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut names: Vec<&str> =
            names.filter_map(|n| std::str::from_utf8(n).ok()).filter(|n| !n.is_empty() && !n.contains('\n')).collect();
        names.sort_unstable();
        names.dedup();
        Self::read(names.join("\n"))
    }

    /// Names that [`Names::text`] gave. Text that is not sorted is sorted again.
    pub fn read(text: String) -> Self {
        let starts = |text: &str| -> Vec<u32> {
            let breaks = memchr::memchr_iter(b'\n', text.as_bytes()).map(|i| i as u32 + 1);
            if text.is_empty() { Vec::new() } else { std::iter::once(0).chain(breaks).collect() }
        };
        let names = Self { starts: starts(&text), text };
        if names.iter().zip(names.iter().skip(1)).all(|(a, b)| a < b) {
            return names;
        }
        Self::new(names.iter().map(str::as_bytes))
    }

    /// All of them, one a line.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// How many names there are; each counts once.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// All names, sorted.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.len()).map(|i| self.at(i))
    }

    /// Whether `name` is one of them.
    pub fn contains(&self, name: &str) -> bool {
        let i = self.starts.partition_point(|&s| self.name_at(s) < name);
        i < self.len() && self.at(i) == name
    }

    /// Whether one of them begins with `prefix`.
    pub fn any_begins(&self, prefix: &str) -> bool {
        let i = self.starts.partition_point(|&s| self.name_at(s) < prefix);
        i < self.len() && self.at(i).starts_with(prefix)
    }

    fn at(&self, i: usize) -> &str {
        self.name_at(self.starts[i])
    }

    fn name_at(&self, start: u32) -> &str {
        let rest = &self.text[start as usize..];
        memchr::memchr(b'\n', rest.as_bytes()).map_or(rest, |end| &rest[..end])
    }
}

/// What a loader reads of a library.
#[derive(Debug, Clone)]
pub struct Symbols {
    /// Executable format.
    pub format: Format,
    /// `x86_64`, `aarch64`.
    pub machine: String,
    /// soname, install name or export name.
    pub name: Option<String>,
    /// Libraries that are loaded with it; not those that a DLL loads late.
    pub needed: Vec<String>,
    /// Libraries whose symbols it gives out as its own (Mach-O).
    pub reexported: Vec<String>,
    /// What it exports. DLLs also export by number: `#17`.
    pub exports: Names,
    /// What it must find at others.
    pub imports: Vec<Import>,
    /// Versions that it defines (ELF).
    pub defines: BTreeSet<String>,
    /// Versions that it needs (ELF).
    pub versions: BTreeSet<VersionNeed>,
}

/// Reads the library in `source`: one, or one for each architecture of a fat file. Images for 32-bit machines are left
/// out, as no process loads them that a torch of today runs in: of a library that is for those alone, nothing is left.
///
/// # Errors
/// If it is no library, or one that is cut off or has tables that point nowhere or cannot be found.
pub fn symbols(source: &dyn ReadAt) -> Result<Vec<Symbols>> {
    if image_is_32_bit(source, 0) {
        return Ok(Vec::new());
    }
    let magic = slice(source, 0, source.size().min(8)).unwrap_or_default();
    let format = format_of(&magic).ok_or_else(|| Error::misuse("no-library", "neither ELF nor PE nor Mach-O"))?;
    let images = if magic.starts_with(&[0xca, 0xfe]) {
        super::macho::fat_images(&Lens::new(source, READ_BUDGET)).map_err(|e| unreadable(format, e))?
    } else {
        vec![(0, source.size())]
    };
    let mut out = Vec::new();
    for (start, size) in images {
        if start.checked_add(size).is_none_or(|end| end > source.size()) {
            return Err(Error::misuse("library", "an image of this fat file lies past the file's end"));
        }
        let part = Part { of: source, start, size };
        let cache = Lens::new(&part, READ_BUDGET);
        let narrow = match format {
            Format::Elf => FileHeader32::<Endianness>::parse(&cache).is_ok(),
            Format::Pe => optional_header_magic(&cache).is_ok_and(|m| m == object::pe::IMAGE_NT_OPTIONAL_HDR32_MAGIC),
            Format::MachO => image_is_32_bit(&part, 0),
        };
        if narrow {
            continue;
        }
        if format == Format::Elf && hides_its_tables(&cache).map_err(|e| unreadable(format, e))? {
            return Err(Error::misuse(
                "library",
                "not a readable 64-bit ELF file: a loader knows it, but no section header leads to its symbols",
            )
            .next("a packer or sstrip took them out: name the library as its linker made it"));
        }
        let read = match format {
            Format::Elf => of_elf(&cache),
            Format::Pe => of_pe(&cache),
            Format::MachO => of_macho(&cache),
        };
        out.push(read.map_err(|e| unreadable(format, e))?);
    }
    Ok(out)
}

/// Whether the loader's own tables are there (PT_DYNAMIC), and no section shows them: it would seem to need nothing.
fn hides_its_tables<'d, R: ReadRef<'d>>(data: R) -> object::read::Result<bool> {
    let header = FileHeader64::<Endianness>::parse(data)?;
    let endian = header.endian()?;
    let sections = header.sections(endian, data)?;
    let shown = |kind: elf::SectionType| sections.iter().any(|s| s.sh_type(endian) == kind);
    let segments = header.program_headers(endian, data)?;
    let loaded = segments.iter().any(|p| p.p_type(endian) == elf::PT_DYNAMIC && p.p_filesz(endian) > 0);
    Ok(loaded && !(shown(elf::SHT_DYNAMIC) && shown(elf::SHT_DYNSYM)))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn of_elf<'d, R: ReadRef<'d>>(data: R) -> object::read::Result<Symbols> {
    let header = FileHeader64::<Endianness>::parse(data)?;
    let endian = header.endian()?;
    let sections = header.sections(endian, data)?;
    let table = sections.symbols(endian, data, elf::SHT_DYNSYM)?;
    let versions = sections.versions(endian, data)?.unwrap_or_default();
    let elf = Elf::read(data)?;
    let (mut exports, mut imports) = (Vec::new(), Vec::new());
    for (i, symbol) in table.iter().enumerate().skip(1) {
        let name = symbol.name(endian, table.strings())?;
        if symbol.st_bind() == elf::STB_LOCAL || name.is_empty() {
            continue;
        }
        if symbol.st_shndx(endian).0 != 0 {
            exports.push(name);
        } else if symbol.st_bind() != elf::STB_WEAK {
            // Weak ones may stay undefined.
            let index = versions.version_index(endian, SymbolIndex(i)).index();
            let version = versions.version(index).ok().flatten();
            let from = version.and_then(|v| v.file()).map(text);
            imports.push(Import { name: text(name), from, version: version.map(|v| text(v.name())) });
        }
    }
    Ok(Symbols {
        format: Format::Elf,
        machine: machine_name(elf.machine),
        name: elf.soname,
        needed: elf.needed,
        reexported: Vec::new(),
        exports: Names::new(exports.into_iter()),
        imports,
        defines: defined_versions(data)?,
        versions: elf.versions,
    })
}

/// The versions that a library gives its symbols, without the one that stands for the file itself.
fn defined_versions<'d, R: ReadRef<'d>>(data: R) -> object::read::Result<BTreeSet<String>> {
    let header = FileHeader64::<Endianness>::parse(data)?;
    let endian = header.endian()?;
    let sections = header.sections(endian, data)?;
    let mut out = BTreeSet::new();
    if let Some((mut definitions, link)) = sections.gnu_verdef(endian, data)? {
        let strings = sections.strings(endian, data, link)?;
        while let Some((_, mut names)) = definitions.next()? {
            // The first is the version, those after it are what it inherits from.
            if let Some(name) = names.next()? {
                out.insert(text(name.name(endian, strings)?));
            }
        }
    }
    Ok(out)
}

/// Entries of a DLL's table that are read: more is no library but an attempt to keep us busy.
const MOST_ENTRIES: usize = 1 << 20;

fn of_pe<'d, R: ReadRef<'d>>(data: R) -> object::read::Result<Symbols> {
    let file = PeFile64::parse(data)?;
    let mut out = Symbols {
        format: Format::Pe,
        machine: match file.nt_headers().file_header.machine.get(LE) {
            object::pe::IMAGE_FILE_MACHINE_ARM64 => machine(true),
            object::pe::IMAGE_FILE_MACHINE_AMD64 => machine(false),
            other => format!("machine {:#x}", other.0),
        },
        name: None,
        needed: Vec::new(),
        reexported: Vec::new(),
        exports: Names::default(),
        imports: Vec::new(),
        defines: BTreeSet::new(),
        versions: BTreeSet::new(),
    };
    if let Some(table) = file.export_table()? {
        let mut exports: Vec<Vec<u8>> = Vec::new();
        for (pointer, _) in table.name_iter().take(MOST_ENTRIES) {
            exports.push(table.name_from_pointer(pointer)?.to_vec());
        }
        let base = u32::from(table.ordinal_base());
        let numbers = table.addresses().iter().take(MOST_ENTRIES).enumerate().filter(|(_, a)| a.get(LE) != 0);
        exports.extend(numbers.map(|(i, _)| format!("#{}", base + i as u32).into_bytes()));
        out.exports = Names::new(exports.iter().map(Vec::as_slice));
        out.name = table.name_from_pointer(table.directory().name.get(LE)).ok().map(text);
    }
    let Some(table) = file.import_table()? else { return Ok(out) };
    let mut descriptors = table.descriptors()?;
    while let Some(descriptor) = descriptors.next()? {
        let dll = text(table.name(descriptor.name.get(LE))?);
        let first = descriptor.original_first_thunk.get(LE);
        let mut thunks = table.thunks(if first == 0 { descriptor.first_thunk.get(LE) } else { first })?;
        while let Some(thunk) = thunks.next::<object::pe::ImageNtHeaders64>()? {
            let name = match table.import::<object::pe::ImageNtHeaders64>(thunk)? {
                PeImport::Ordinal(n) => format!("#{n}"),
                PeImport::Name(_, name) => text(name),
            };
            out.imports.push(Import { name, from: Some(dll.clone()), version: None });
            if out.imports.len() > MOST_ENTRIES {
                return Ok(out);
            }
        }
        out.needed.push(dll);
    }
    Ok(out)
}

fn of_macho<'d, R: ReadRef<'d>>(data: R) -> object::read::Result<Symbols> {
    let header = MachHeader64::<Endianness>::parse(data, 0)?;
    let endian = header.endian()?;
    let read = super::macho::read(data)?;
    let mut reexported = Vec::new();
    // Optional ones (LC_LOAD_WEAK_DYLIB) need not be there, but they count where symbols say whose they are.
    let (mut all, mut needed) = (Vec::new(), Vec::new());
    let (mut exports, mut imports) = (Vec::new(), Vec::new());
    let mut table = None;
    let mut commands = header.load_commands(endian, data, 0)?;
    while let Some(command) = commands.next()? {
        if let Some(dylib) = command.dylib()? {
            let name = text(command.string(endian, dylib.dylib.name)?);
            if command.cmd() == macho::LC_REEXPORT_DYLIB {
                reexported.push(name.clone());
            }
            if command.cmd() != macho::LC_LOAD_WEAK_DYLIB {
                needed.push(name.clone());
            }
            all.push(name);
        }
        if let LoadCommandVariant::Symtab(symtab) = command.variant()? {
            table = Some(symtab.symbols::<MachHeader64<Endianness>, R>(endian, data)?);
        }
    }
    for symbol in table.iter().flat_map(|t| t.iter().map(move |s| (t, s))).map(|(t, s)| (t.strings(), s)) {
        let (strings, symbol) = symbol;
        let kind = symbol.n_type();
        if kind.is_stab() || !kind.is_ext() {
            continue;
        }
        // Names begin with the C language's underscore.
        let name = symbol.name(endian, strings)?;
        let name = name.strip_prefix(b"_").unwrap_or(name);
        if !symbol.is_undefined() {
            if !kind.is_pext() {
                exports.push(name);
            }
            continue;
        }
        if symbol.n_desc(endian).intersects(macho::N_WEAK_REF) {
            continue;
        }
        // 1 and up: the dylib with that number. The rest: the file itself, the program, or any.
        let ordinal = usize::from(symbol.library_ordinal(endian).0);
        let from = ordinal.checked_sub(1).and_then(|i| all.get(i)).cloned();
        imports.push(Import { name: text(name), from, version: None });
    }
    Ok(Symbols {
        format: Format::MachO,
        machine: match header.cputype(endian) {
            macho::CPU_TYPE_ARM64 => machine(true),
            macho::CPU_TYPE_X86_64 => machine(false),
            other => format!("cputype {:#x}", other.0),
        },
        name: read.name,
        needed,
        reexported,
        exports: Names::new(exports.into_iter()),
        imports,
        defines: BTreeSet::new(),
        versions: BTreeSet::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_name_is_found_where_it_is_and_only_there(names in prop::collection::vec("[a-c]{0,4}", 0..30), asked in "[a-d]{1,4}") {
            let sorted = Names::new(names.iter().map(String::as_bytes));
            prop_assert_eq!(sorted.contains(&asked), names.contains(&asked));
            prop_assert_eq!(sorted.any_begins(&asked), names.iter().any(|n| n.starts_with(&asked)));
            prop_assert_eq!(Names::read(sorted.text().to_owned()), sorted);
        }

        #[test]
        fn no_bytes_make_the_reader_panic(kind in 0..3usize, bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let magic: [&[u8]; 3] = [b"\x7fELF\x02\x01\x01", b"MZ", &[0xcf, 0xfa, 0xed, 0xfe]];
            let _ = symbols(&[magic[kind], &bytes].concat());
        }
    }

    #[test]
    fn what_is_for_32_bit_machines_alone_is_a_library_without_images() {
        let elf = [&b"\x7fELF\x01\x01\x01"[..], &[0; 45]].concat();
        let mut pe = vec![0u8; 64 + 248];
        pe[..2].copy_from_slice(b"MZ");
        pe[0x3c] = 64; // where the headers are
        pe[64..68].copy_from_slice(b"PE\0\0");
        pe[88..90].copy_from_slice(&[0x0b, 0x01]);
        let mach_o = [&[0xce_u8, 0xfa, 0xed, 0xfe][..], &[0; 60]].concat();
        for library in [&elf, &pe, &mach_o] {
            assert!(symbols(library).unwrap().is_empty());
        }
        // One for 64-bit machines that is cut off is not excused.
        let cut = [&b"\x7fELF\x02\x01\x01"[..], &[0; 45]].concat();
        assert!(symbols(&cut).is_err());
    }

    #[test]
    fn what_was_remembered_out_of_order_is_put_in_order() {
        let names = Names::read("b\na\nb".into());
        assert!(names.contains("a") && names.contains("b") && names.len() == 2);
    }
}
