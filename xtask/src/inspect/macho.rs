//! Mach-O (macOS): libraries, the oldest system, and the proof that a class is really compiled in.

use object::macho::{self, MachHeader64};
use object::read::macho::{FatArch, MachHeader, MachOFatFile32, MachOFatFile64, Nlist, Segment};
use object::{Endianness, ReadRef};
use torchmill_bytes::marker::{self, Class};

use super::evidence::{Evidence, Uv};
use super::uv;

type Header = MachHeader64<Endianness>;

/// What matters here of a 64-bit Mach-O file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MachO {
    /// LC_ID_DYLIB: the install name that others ask for it by.
    pub name: Option<String>,
    /// LC_LOAD_DYLIB and its kin.
    pub needed: Vec<String>,
    /// LC_RPATH, in order: what `@rpath` stands for.
    pub run_paths: Vec<String>,
    /// Oldest macOS that it runs on.
    pub min_os: Option<String>,
    /// Whether it is for 64-bit Arm.
    pub aarch64: bool,
}

/// Where the images of a fat file are: offset and size of each.
pub(super) fn fat_images<'d, R: ReadRef<'d>>(data: R) -> object::read::Result<Vec<(u64, u64)>> {
    fn ranges<'a, A: FatArch + 'a>(architectures: impl Iterator<Item = &'a A>) -> Vec<(u64, u64)> {
        // Nobody ships more than a handful; a file that claims more is up to something.
        architectures.take(16).map(FatArch::file_range).collect()
    }
    if let Ok(fat) = MachOFatFile32::parse(data) {
        return Ok(ranges(fat.arches().iter()));
    }
    let fat = MachOFatFile64::parse(data)?;
    Ok(ranges(fat.arches().iter()))
}

/// Reads the load commands.
pub(super) fn read<'d, R: ReadRef<'d>>(data: R) -> object::read::Result<MachO> {
    let header = Header::parse(data, 0)?;
    let endian = header.endian()?;
    let mut out = MachO { aarch64: header.cputype(endian) == macho::CPU_TYPE_ARM64, ..MachO::default() };
    let mut commands = header.load_commands(endian, data, 0)?;
    while let Some(command) = commands.next()? {
        let text = |at| command.string(endian, at).map(|b| String::from_utf8_lossy(b).into_owned());
        if let Some(dylib) = command.dylib()? {
            out.needed.push(text(dylib.dylib.name)?);
            continue;
        }
        match command.cmd() {
            macho::LC_ID_DYLIB => {
                let dylib: &macho::DylibCommand<Endianness> = command.data()?;
                out.name = Some(text(dylib.dylib.name)?);
            }
            macho::LC_RPATH => {
                let rpath: &macho::RpathCommand<Endianness> = command.data()?;
                out.run_paths.push(text(rpath.path)?);
            }
            macho::LC_BUILD_VERSION => {
                let version: &macho::BuildVersionCommand<Endianness> = command.data()?;
                out.min_os = Some(packed_version(version.minos.get(endian).0));
            }
            macho::LC_VERSION_MIN_MACOSX => {
                let version: &macho::VersionMinCommand<Endianness> = command.data()?;
                out.min_os = Some(packed_version(version.version.get(endian).0));
            }
            _ => {}
        }
    }
    Ok(out)
}

/// Where the code signature is, by the first bytes: offset and size.
pub(super) fn signature(head: &[u8]) -> Option<(u64, u64)> {
    let header = Header::parse(head, 0).ok()?;
    let endian = header.endian().ok()?;
    let mut commands = header.load_commands(endian, head, 0).ok()?;
    while let Some(command) = commands.next().ok()? {
        if command.cmd() == macho::LC_CODE_SIGNATURE {
            let data: &macho::LinkeditDataCommand<Endianness> = command.data().ok()?;
            return Some((data.dataoff.get(endian).into(), data.datasize.get(endian).into()));
        }
    }
    None
}

/// `xxxx.yy.zz` in nibbles, as `11.0`.
fn packed_version(v: u32) -> String {
    let (major, minor, patch) = (v >> 16, v >> 8 & 0xff, v & 0xff);
    if patch == 0 { format!("{major}.{minor}") } else { format!("{major}.{minor}.{patch}") }
}

/// Defined symbols called one of `names`: which, and where.
fn symbols<'d, R: ReadRef<'d>>(data: R, names: &[String]) -> object::read::Result<Vec<(String, u64)>> {
    let header = Header::parse(data, 0)?;
    let endian = header.endian()?;
    let mut out = Vec::new();
    let mut commands = header.load_commands(endian, data, 0)?;
    while let Some(command) = commands.next()? {
        let Some(symtab) = command.symtab()? else { continue };
        let table = symtab.symbols::<Header, R>(endian, data)?;
        let strings = table.strings();
        for symbol in table.iter() {
            // Undefined, common and indirect symbols are no proof: the thing itself lies elsewhere.
            if symbol.is_stab() || symbol.n_type().typ() != macho::N_SECT {
                continue;
            }
            // Names begin with the C language's underscore.
            if let Ok([b'_', name @ ..]) = symbol.name(endian, strings)
                && let Some(found) = names.iter().find(|n| n.as_bytes() == name)
            {
                out.push((found.clone(), symbol.n_value(endian)));
            }
        }
    }
    Ok(out)
}

/// What the symbol table shows of `class`.
pub(super) fn evidence<'d, R: ReadRef<'d>>(data: R, class: Class) -> object::read::Result<Vec<Evidence>> {
    let found = symbols(data, &marker::itanium_symbols(class))?;
    Ok(found.into_iter().map(|(name, address)| Evidence::Symbol { name, address }).collect())
}

/// The libuv that is compiled in. A linker leaves `uv_version` out where nobody calls it.
pub(super) fn uv<'d, R: ReadRef<'d>>(data: R) -> object::read::Result<Option<Uv>> {
    let found = symbols(data, &["uv_version".into(), "uv_run".into()])?;
    let Some((_, address)) = found.iter().find(|(name, _)| name == "uv_version") else {
        return Ok((!found.is_empty()).then(|| Uv::built_in(None)));
    };
    let header = Header::parse(data, 0)?;
    let endian = header.endian()?;
    let mut commands = header.load_commands(endian, data, 0)?;
    while let Some(command) = commands.next()? {
        let Some((segment, _)) = command.segment_64()? else { continue };
        let Some(into) = address.checked_sub(segment.vmaddr(endian)) else { continue };
        if into < segment.filesize(endian)
            && let Some(offset) = segment.fileoff(endian).checked_add(into)
        {
            let code = data.read_bytes_at(offset, 24).unwrap_or_default();
            let aarch64 = header.cputype(endian) == macho::CPU_TYPE_ARM64;
            return Ok(uv::version_in_code(code, aarch64).map(|version| Uv::built_in(Some(version))));
        }
    }
    Ok(None)
}
