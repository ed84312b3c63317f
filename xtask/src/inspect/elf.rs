//! ELF: needed libraries, run path, symbol versions (System V gABI; LSB symbol versioning).

use std::collections::BTreeSet;

use object::elf::{self, FileHeader64};
use object::read::elf::{Dyn, FileHeader, SectionHeader};
use object::{Endianness, SectionIndex};

use crate::error::{Error, Result};

/// A versioned symbol set that a file needs, such as `GLIBC_2.34` of `libc.so.6`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct VersionNeed {
    /// The library's soname.
    pub library: String,
    /// The version's name.
    pub version: String,
}

/// What matters here of a 64-bit ELF file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Elf {
    /// DT_SONAME.
    pub soname: Option<String>,
    /// DT_NEEDED.
    pub needed: Vec<String>,
    /// DT_RPATH or DT_RUNPATH.
    pub run_path: Option<String>,
    /// Versions of symbols that it takes from other libraries.
    pub versions: BTreeSet<VersionNeed>,
    /// e_machine.
    pub machine: u16,
}

impl Elf {
    /// Whether `bytes` begin like an ELF file.
    pub fn is_elf(bytes: &[u8]) -> bool {
        bytes.starts_with(b"\x7fELF")
    }

    /// Reads the dynamic section and the version needs of `bytes`.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        Self::read(bytes).map_err(|e| Error::misuse("elf", format!("not a readable 64-bit ELF file: {e}")))
    }

    fn read(data: &[u8]) -> object::read::Result<Self> {
        let header = FileHeader64::<Endianness>::parse(data)?;
        let endian = header.endian()?;
        let sections = header.sections(endian, data)?;
        let mut out = Self { machine: header.e_machine(endian).0, ..Self::default() };
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
