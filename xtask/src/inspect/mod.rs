//! What is this torch? Reads wheels, archives, folders and libraries of any platform, without
//! importing or installing them, and tells above all whether c10d's TCPStore has the libuv backend.
//!
//! Everything here works on anything that can be read at an offset ([`ReadAt`]): a file, bytes in
//! memory, a part of a file on a server. Nothing here draws, and nothing knows the command line.
//!
//! ```
//! use torchmill::inspect::{Depth, inspect};
//!
//! // Anything that can be read at an offset: here a file in memory that is no torch.
//! let bytes = b"MZ, and then nothing".to_vec();
//! let error = inspect("torch_cpu.dll", &bytes, Depth::Verdict).unwrap_err();
//! assert!(error.what().contains("not a readable 64-bit PE file"));
//! ```
//!
//! The verdict is never taken from a text. `libuv support` stands in every build, since it is the
//! error's own text; and the class' name proves nothing by itself either. What counts is a symbol
//! or a type info object ([`Evidence`]) that only the compiled class leaves.

pub mod container;
mod defaults;
mod elf;
mod evidence;
mod fatbin;
mod lens;
mod library;
mod macho;
pub mod makers;
mod pe;
mod remote;
mod report;
mod symbols;
mod uv;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use crate::error::{Context, Result};

pub use defaults::{Defaults, Files, Outcome, defaults as start_defaults};
pub use elf::{Elf, VersionNeed};
pub use evidence::{Evidence, Linkage, Uv};
pub use fatbin::count as gpu_images;
pub use lens::Lens;
pub use library::{Format, Library, format_of, image_is_32_bit, on_every_system, read as library};
pub use remote::Remote;
pub use report::{
    Backends, Depth, Floor, Found, Kind, Report, SCHEMA_VERSION, Torch, inspect, inspect_folder, is_library,
    version_field,
};
pub use symbols::{Import, Names, Symbols, symbols};
pub use torchmill_bytes::inflate::{Packed, Scanned, scan as scan_packed, scan_from as scan_packed_from};
pub use torchmill_bytes::marker::{Class, Hit};
pub use uv::version_in_code as uv_version_in_code;

pub(crate) use crate::wheel::slice;
pub use crate::wheel::{Cursor, FileAt, ReadAt, pump};

/// Whether the linked library at `path` holds c10d's libuv store, proved by symbol or type info.
///
/// # Errors
/// If the file cannot be read, or is no library.
pub fn file_has_libuv_store(path: &Path) -> Result<bool> {
    let file = FileAt::new(fs_err::File::open(path)?.into_file())?;
    let libraries = library(&file).doing(|| format!("inspecting {}", path.display()))?;
    Ok(libraries.iter().all(|l| !l.store.is_empty()))
}

/// The GPU code in the library at `path`: number of images by kind and architecture (`cubin sm_90`, `ptx compute_90`).
///
/// # Errors
/// If the file cannot be read, or is no library.
pub fn file_gpu_code(path: &Path) -> Result<BTreeMap<String, u64>> {
    let file = FileAt::new(fs_err::File::open(path)?.into_file())?;
    let libraries = library::read_scanned(&file, &[]).doing(|| format!("inspecting {}", path.display()))?;
    Ok(libraries.into_iter().flat_map(|l| l.gpu).collect())
}

/// Whether `object`, an object file that is not linked yet, holds the type info name of c10d's
/// libuv store. Only for files of a build of our own: a name is a hint, and proof comes with linking.
pub fn object_names_libuv_store(object: &[u8]) -> bool {
    let (itanium, msvc) = torchmill_bytes::marker::names(Class::LibuvStore);
    [itanium, msvc].iter().any(|name| memchr::memmem::find(object, name.as_bytes()).is_some())
}

/// Whether the file at `path` contains `needle`; reads it in pieces.
///
/// # Errors
/// If the file cannot be read.
pub fn file_contains(path: &Path, needle: &[u8]) -> Result<bool> {
    let mut file = fs_err::File::open(path)?;
    let mut buffer = vec![0u8; 1 << 20];
    let mut kept = 0;
    loop {
        let n = file.read(&mut buffer[kept..])?;
        if n == 0 {
            return Ok(false);
        }
        let end = kept + n;
        if memchr::memmem::find(&buffer[..end], needle).is_some() {
            return Ok(true);
        }
        // What may be the beginning of a match goes to the front.
        kept = (needle.len() - 1).min(end);
        buffer.copy_within(end - kept..end, 0);
    }
}
