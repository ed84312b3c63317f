//! Mach-O: upstream's build gives the libraries their run paths (`@loader_path`), and what they need beside one
//! another every macOS has.

use std::path::Path;

use super::repairer::{Repaired, Repairer, Tools, platform_of_backend};
use crate::error::Result;

/// What macOS does its own way.
pub struct Macos;

impl Repairer for Macos {
    fn bundle_system(&self) -> &'static str {
        "macos"
    }

    fn store_library(&self) -> &'static str {
        "libtorch_cpu.dylib"
    }

    fn python_only(&self) -> &'static [&'static str] {
        &["libtorch_python.dylib"]
    }

    fn repair(&self, root: &Path, _tools: &Tools<'_>) -> Result<Repaired> {
        let why = "the oldest macOS that the backend names".into();
        Ok(Repaired { grafted: Vec::new(), platform: platform_of_backend(root)?, why })
    }
}
