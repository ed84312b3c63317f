//! Import libraries for Windows: a linker there asks for one, and the packages of CUDA 13 hold most DLLs without.

use std::path::{Path, PathBuf};

use ar_archive_writer::{COFFShortExport, MachineTypes, write_import_library};
use object::LittleEndian as LE;
use object::read::ReadCache;
use object::read::pe::{ExportTarget, PeFile64};

use crate::error::{Error, Result};
use crate::store::write_atomically;

/// Folders of a toolkit's DLLs: of the packages of CUDA 13, of installed ones, of cuDNN's package.
pub const FOLDERS: [&str; 3] = ["bin/x86_64", "bin/x64", "bin"];

/// The DLL in a toolkit at `root` that an import library called `name` leads to: `cublas64_13.dll` for `cublas`.
pub fn dll_of(root: &Path, name: &str) -> Option<PathBuf> {
    let is = |file: &str| {
        let rest = file.strip_prefix(name).and_then(|rest| rest.strip_suffix(".dll"));
        let version = rest.and_then(|rest| rest.strip_prefix("64_").or_else(|| rest.strip_prefix('_')));
        version.is_some_and(|v| v.starts_with(|c: char| c.is_ascii_digit()) && !v.contains("alt"))
    };
    let mut found: Vec<PathBuf> = FOLDERS
        .iter()
        .filter_map(|folder| std::fs::read_dir(root.join(folder)).ok())
        .flat_map(|entries| entries.flatten().map(|entry| entry.path()))
        .filter(|path| path.file_name().is_some_and(|file| is(&file.to_string_lossy())))
        .collect();
    found.sort();
    found.into_iter().next()
}

/// Writes to `library` what a linker needs to link the DLL at `dll`, as `lib /def:` would make it of its exports; the
/// same DLL gives the same bytes. What it exports by number alone is left out.
///
/// # Errors
/// The file at `dll` is no DLL for x86-64, or exports nothing by name; `library` cannot be written.
pub fn import_library(dll: &Path, library: &Path) -> Result<()> {
    let bad = |what: String| Error::misuse("cuda-toolkit", format!("{}: {what}", dll.display()));
    let cache = ReadCache::new(fs_err::File::open(dll)?.into_file());
    let file = PeFile64::parse(&cache).map_err(|e| bad(format!("it is no DLL for x86-64: {e}")))?;
    let machine = file.nt_headers().file_header.machine.get(LE);
    if machine != object::pe::IMAGE_FILE_MACHINE_AMD64 {
        return Err(bad(format!("it is for machine {machine:#06x}, not for x86-64")));
    }
    let table = file.export_table().map_err(|e| bad(format!("its exports cannot be read: {e}")))?;
    let exports = table.map_or(Ok(Vec::new()), |table| table.exports());
    let exports = exports.map_err(|e| bad(format!("its exports cannot be read: {e}")))?;
    let sections = file.section_table();
    let is_data = |target: &ExportTarget<'_>| match target {
        ExportTarget::Address(rva) => sections
            .section_containing(*rva)
            .is_some_and(|section| !section.characteristics.get(LE).contains(object::pe::IMAGE_SCN_MEM_EXECUTE)),
        _ => false,
    };
    let exports: Vec<COFFShortExport> = exports
        .iter()
        .filter_map(|export| {
            Some(COFFShortExport {
                name: String::from_utf8_lossy(export.name?).into_owned(),
                ext_name: None,
                symbol_name: None,
                import_name: None,
                export_as: None,
                ordinal: 0,
                noname: false,
                data: is_data(&export.target),
                private: false,
                constant: false,
            })
        })
        .collect();
    if exports.is_empty() {
        return Err(bad("it exports nothing by name".into()));
    }
    let name = dll.file_name().unwrap_or_default().to_string_lossy();
    let mut out = std::io::Cursor::new(Vec::new());
    write_import_library(&mut out, &name, &exports, MachineTypes::AMD64, false, false, &[])
        .map_err(|e| bad(format!("no import library can be made of it: {e}")))?;
    write_atomically(library, &out.into_inner())
}
