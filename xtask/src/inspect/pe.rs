//! PE (Windows): imports, and the proof that a class is really compiled in: MSVC's type descriptor
//! with a complete object locator that points at it, or mingw's type info.

use object::read::pe::{ImageNtHeaders, ImageOptionalHeader, PeFile64};
use object::{LittleEndian as LE, ReadRef};
use torchmill_bytes::marker::{Class, Hit};

use super::evidence::{Evidence, Uv};
use super::uv;
use crate::wheel::{ReadAt, slice, u32_at};

/// What matters here of a 64-bit PE file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pe {
    /// DLLs that it imports from, those that are loaded late included.
    pub needed: Vec<String>,
    /// Name by which it exports, where it exports at all.
    pub name: Option<String>,
    /// Whether it is for 64-bit Arm.
    pub aarch64: bool,
}

/// Most entries of a table that are read: more is no library but an attempt to keep us busy.
const MOST_ENTRIES: usize = 1 << 16;

/// Reads imports and the export name.
pub(super) fn read<'d, R: ReadRef<'d>>(data: R, source: &dyn ReadAt) -> object::read::Result<Pe> {
    let file = PeFile64::parse(data)?;
    let image = Image { source, sections: sections(&file) };
    let machine = file.nt_headers().file_header().machine.get(LE);
    let mut out = Pe { aarch64: machine == object::pe::IMAGE_FILE_MACHINE_ARM64, ..Pe::default() };
    // Size of a descriptor and where in it the DLL's name is (PE format, "Import Directory Table",
    // "The Delay-Load Directory Table").
    for (directory, size, at) in
        [(object::pe::IMAGE_DIRECTORY_ENTRY_IMPORT, 20, 12), (object::pe::IMAGE_DIRECTORY_ENTRY_DELAY_IMPORT, 32, 4)]
    {
        let Some(table) = file.data_directory(directory) else { continue };
        let start = u64::from(table.virtual_address.get(LE));
        for i in 0..MOST_ENTRIES as u64 {
            let Some(entry) = image.bytes(start + i * size, size).filter(|_| start > 0) else { break };
            let rva = u32_at(&entry, at);
            if rva == 0 {
                break;
            }
            out.needed.extend(image.text(rva.into()));
        }
    }
    if let Some(exports) = image.exports(&file) {
        out.name = image.text(u32_at(&exports, 12).into());
    }
    Ok(out)
}

/// Whether a file of `size` bytes is for aarch64, by its first bytes; `None` where a section lies past
/// the end, or it is another kind of file.
pub(super) fn whole(head: &[u8], size: u64) -> Option<bool> {
    let file = PeFile64::parse(head).ok()?;
    let inside = |s: &object::pe::ImageSectionHeader| {
        u64::from(s.pointer_to_raw_data.get(LE)) + u64::from(s.size_of_raw_data.get(LE)) <= size
    };
    let machine = file.nt_headers().file_header().machine.get(LE);
    file.section_table().iter().all(inside).then_some(machine == object::pe::IMAGE_FILE_MACHINE_ARM64)
}

/// Where the last of constants and data ends, by the first bytes: linkers put type descriptors into `.data` or
/// `.rdata`, and locators into `.rdata`. `None` where there are no such sections, or it is another kind of file.
pub(super) fn data_end(head: &[u8]) -> Option<u64> {
    let file = PeFile64::parse(head).ok()?;
    let end = |name: &[u8]| {
        let section = file.section_table().iter().find(|s| s.raw_name() == name)?;
        let (offset, size) = section.pe_file_range();
        u64::from(offset).checked_add(size.into())
    };
    Some(end(b".rdata")?.max(end(b".data")?))
}

/// The image as addresses see it.
struct Image<'a> {
    source: &'a dyn ReadAt,
    sections: Vec<Section>,
}

impl Image<'_> {
    fn offset(&self, rva: u64) -> Option<u64> {
        self.sections.iter().find_map(|s| rva.checked_sub(s.rva).filter(|i| *i < s.size).map(|i| s.offset + i))
    }

    fn bytes(&self, rva: u64, size: u64) -> Option<Vec<u8>> {
        slice(self.source, self.offset(rva)?, size)
    }

    /// The text that ends with a zero at `rva`.
    fn text(&self, rva: u64) -> Option<String> {
        let offset = self.offset(rva)?;
        let size = self.source.size().checked_sub(offset)?.min(512);
        let bytes = slice(self.source, offset, size)?;
        let end = memchr::memchr(0, &bytes)?;
        Some(String::from_utf8_lossy(&bytes[..end]).into_owned())
    }

    /// The export directory.
    fn exports<'d, R: ReadRef<'d>>(&self, file: &PeFile64<'d, R>) -> Option<Vec<u8>> {
        let rva = file.data_directory(object::pe::IMAGE_DIRECTORY_ENTRY_EXPORT)?.virtual_address.get(LE);
        if rva == 0 { None } else { self.bytes(rva.into(), 40) }
    }
}

/// A section: where it is in memory (relative) and in the file.
struct Section {
    rva: u64,
    offset: u64,
    size: u64,
    writable_or_constant: bool,
}

fn sections<'d, R: ReadRef<'d>>(file: &PeFile64<'d, R>) -> Vec<Section> {
    file.section_table()
        .iter()
        .map(|s| {
            let (offset, size) = s.pe_file_range();
            Section {
                rva: u64::from(s.virtual_address.get(LE)),
                offset: u64::from(offset),
                size: u64::from(size),
                writable_or_constant: !s.name.starts_with(b".text"),
            }
        })
        .collect()
}

/// What the file shows of `class`, given where its names were seen.
pub(super) fn evidence<'d, R: ReadRef<'d>>(
    data: R,
    source: &dyn ReadAt,
    class: Class,
    hits: &[Hit],
) -> object::read::Result<Vec<Evidence>> {
    let file = PeFile64::parse(data)?;
    let optional = file.nt_headers().optional_header();
    let (base, image) = (optional.image_base(), u64::from(optional.size_of_image()));
    let sections = sections(&file);
    let rva_of = |offset: u64| {
        sections
            .iter()
            .find_map(|s| offset.checked_sub(s.offset).filter(|into| *into < s.size).map(|into| s.rva + into))
    };
    for hit in hits.iter().filter(|h| h.class == class) {
        let Some(name) = rva_of(hit.offset) else { continue };
        let proved = if hit.msvc {
            // struct TypeDescriptor { const void* vftable; void* spare; char name[]; }
            let Some(head) = hit.offset.checked_sub(16).and_then(|o| slice(source, o, 16)) else { continue };
            let pointer = u64::from_le_bytes(head[..8].try_into().unwrap_or_default());
            let in_image = pointer.checked_sub(base).is_some_and(|rva| rva < image);
            if !in_image || head[8..] != [0; 8] {
                continue;
            }
            let descriptor = name - 16;
            locator(source, &sections, descriptor).map(|address| Evidence::TypeInfo { address, name })
        } else {
            pointer_to(source, &sections, base + name).map(|address| Evidence::TypeInfo { address, name })
        };
        if let Some(proved) = proved {
            return Ok(vec![proved]);
        }
    }
    Ok(Vec::new())
}

/// The complete object locator of a polymorphic class: { signature 1, offset, cdOffset, type
/// descriptor, class descriptor, itself }, addresses relative to the image.
fn locator(source: &dyn ReadAt, sections: &[Section], descriptor: u64) -> Option<u64> {
    let needle = u32::try_from(descriptor).ok()?.to_le_bytes();
    search(source, sections, &needle, |section, at, bytes| {
        let start = at.checked_sub(12)?;
        let field = |i: usize| Some(u32::from_le_bytes(bytes.get(start + 4 * i..start + 4 * i + 4)?.try_into().ok()?));
        let own = section.rva + start as u64;
        (field(0)? == 1 && u64::from(field(5)?) == own).then_some(own)
    })
}

/// An aligned pointer to `address`, with a pointer before it: `std::type_info` of the Itanium ABI.
fn pointer_to(source: &dyn ReadAt, sections: &[Section], address: u64) -> Option<u64> {
    search(source, sections, &address.to_le_bytes(), |section, at, bytes| {
        let before = u64::from_le_bytes(bytes.get(at.checked_sub(8)?..at)?.try_into().ok()?);
        let own = section.rva + at as u64 - 8;
        (own.is_multiple_of(8) && before != 0).then_some(own)
    })
}

/// Looks for `needle` in all sections that hold data, in windows that overlap; `check` is given the
/// section as if it began where the window does.
fn search(
    source: &dyn ReadAt,
    sections: &[Section],
    needle: &[u8],
    check: impl Fn(&Section, usize, &[u8]) -> Option<u64>,
) -> Option<u64> {
    const WINDOW: u64 = 4 << 20;
    const OVERLAP: u64 = 64;
    for s in sections.iter().filter(|s| s.writable_or_constant) {
        let mut into = 0;
        while into < s.size {
            let size = (s.size - into).min(WINDOW + OVERLAP);
            let bytes = slice(source, s.offset.checked_add(into)?, size)?;
            let window = Section { rva: s.rva + into, offset: s.offset + into, size, writable_or_constant: true };
            for at in memchr::memmem::find_iter(&bytes, needle) {
                if let Some(found) = check(&window, at, &bytes) {
                    return Some(found);
                }
            }
            into += WINDOW;
        }
    }
    None
}

/// The version that the libuv which `data` is, or holds and exports, gives itself.
pub(super) fn uv_version<'d, R: ReadRef<'d>>(data: R, source: &dyn ReadAt) -> object::read::Result<Option<Uv>> {
    let file = PeFile64::parse(data)?;
    let image = Image { source, sections: sections(&file) };
    let found = exported(&image, &file, "uv_version").and_then(|rva| {
        let mut offset = image.offset(rva)?;
        let mut code = slice(source, offset, 24)?;
        // An incremental link exports a jump to the function.
        if let [0xe9, a, b, c, d, ..] = code[..] {
            offset = offset.checked_add_signed(i64::from(i32::from_le_bytes([a, b, c, d])) + 5)?;
            code = slice(source, offset, 24)?;
        }
        let machine = file.nt_headers().file_header().machine.get(LE);
        uv::version_in_code(&code, machine == object::pe::IMAGE_FILE_MACHINE_ARM64)
    });
    Ok(found.map(|version| Uv::built_in(Some(version))))
}

/// Where the export called `name` is.
fn exported<'d, R: ReadRef<'d>>(image: &Image<'_>, file: &PeFile64<'d, R>, name: &str) -> Option<u64> {
    let directory = image.exports(file)?;
    let names = (u32_at(&directory, 24) as usize).min(MOST_ENTRIES) as u64;
    let pointers = image.bytes(u32_at(&directory, 32).into(), names * 4)?;
    let ordinals = image.bytes(u32_at(&directory, 36).into(), names * 2)?;
    let index = (0..names as usize).find(|i| image.text(u32_at(&pointers, i * 4).into()).as_deref() == Some(name))?;
    let ordinal = u64::from(u16::from_le_bytes([ordinals[index * 2], ordinals[index * 2 + 1]]));
    let address = image.bytes(u64::from(u32_at(&directory, 28)).checked_add(ordinal * 4)?, 4)?;
    Some(u32_at(&address, 0).into())
}

/// The bytes of the section called `name` (at most eight letters): offset and size in the file.
pub(super) fn section_range<'d, R: ReadRef<'d>>(data: R, name: &str) -> object::read::Result<Option<(u64, u64)>> {
    let file = PeFile64::parse(data)?;
    let found = file.section_table().iter().find(|s| s.raw_name() == name.as_bytes()).map(|s| s.pe_file_range());
    Ok(found.map(|(offset, size)| (offset.into(), size.into())))
}
