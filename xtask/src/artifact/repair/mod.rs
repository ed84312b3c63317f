//! Where systems differ in what is packed: a file for each format of libraries, behind one trait.

mod elf;
mod macho;
pub mod pe;
mod repairer;

use crate::recipe::System;

pub use repairer::{Grafted, LIBRARIES, Repaired, Repairer, Tools};

/// The one of `system`.
#[must_use]
pub fn of(system: System) -> &'static dyn Repairer {
    match system {
        System::Linux => &elf::Linux,
        System::Windows => &pe::Windows,
        System::Macos => &macho::Macos,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_is_called_as_its_system() {
        let name = |system| of(system).bundle_system();
        assert_eq!([System::Linux, System::Windows, System::Macos].map(name), ["linux", "win", "macos"]);
        assert!(of(System::Windows).python_only().is_empty(), "torch_python.dll belongs to it");
    }

    #[test]
    fn a_path_of_windows_leaks_with_any_separator() {
        let spellings = of(System::Windows).spellings(r"C:\store\x");
        assert_eq!(spellings.into_iter().collect::<Vec<_>>(), ["C:/store/x", r"C:\\store\\x", r"C:\store\x"]);
        assert_eq!(of(System::Linux).spellings("/store").len(), 1);
    }
}
