//! What a torch is for: system, machine, Python. What fits it is asked here and nowhere else.

use pep440_rs::Version;
use pep508_rs::MarkerEnvironment;
use serde::Serialize;

use crate::error::Result;
use crate::recipe::System;
use crate::source::pypi;
use crate::wheel;

pub use crate::recipe::{Requirement, requirement};

/// System, machine and Python that a torch is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Target {
    /// The system that its libraries are for.
    #[serde(serialize_with = "system_name")]
    pub system: System,
    /// `x86_64`, `aarch64`.
    pub machine: String,
    /// `3.11`, `3.13t` (free-threaded); `None` where there is no Python part (libtorch).
    pub python: Option<String>,
}

fn system_name<S: serde::Serializer>(system: &System, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(system.name())
}

impl Target {
    /// In words: `CPython 3.11 on Linux x86_64`.
    pub fn words(&self) -> String {
        let on = format!("{} {}", self.system.name(), self.machine);
        self.python.as_ref().map_or(on.clone(), |p| format!("CPython {p} on {on}"))
    }

    /// The version of its Python: `3.13`, free-threaded or not.
    pub fn minor(&self) -> Option<&str> {
        self.python.as_deref().map(|p| p.trim_end_matches('t'))
    }

    /// Whether this is the kind of machine that this program runs on, so that its own libraries count.
    pub fn is_here(&self) -> bool {
        self.system == System::here() && self.machine == std::env::consts::ARCH
    }

    /// How well a wheel of this name fits: smaller is better, `None` is not at all.
    pub fn rank(&self, filename: &str) -> Option<u32> {
        wheel::fit_within(filename, self.python.as_deref()?, self.system, &self.machine, wheel::Newest::ANY)
    }

    /// What markers are read against.
    ///
    /// # Errors
    /// Bad input: the Python's version is none.
    pub fn markers(&self) -> Result<MarkerEnvironment> {
        let minor = self.minor().unwrap_or("3.11");
        pypi::Platform { system: self.system, machine: &self.machine, minor }.environment()
    }
}

/// What is asked of a package's METADATA.
#[derive(Debug, Clone, Default)]
pub struct Metadata {
    /// Name, normalized.
    pub name: String,
    /// Version, as written.
    pub version: String,
    /// `Requires-Python`, as written (PEP 345, a PEP 440 range).
    pub requires_python: Option<String>,
    /// `Requires-Dist`, those that can be read.
    pub requires: Vec<Requirement>,
}

impl Metadata {
    /// Reads a METADATA file, or an older PKG-INFO.
    pub fn parse(text: &str) -> Self {
        let headers = wheel::Metadata::lenient(text);
        let value = |key: &str| headers.get(key).map(str::to_owned);
        Self {
            name: headers.get("Name").map(wheel::normalize).unwrap_or_default(),
            version: value("Version").unwrap_or_default(),
            requires_python: value("Requires-Python"),
            requires: headers.all("Requires-Dist").filter_map(|r| requirement(r).ok()).collect(),
        }
    }

    /// The requirements on `name` that count for `target`, extras left out.
    ///
    /// # Errors
    /// As [`Target::markers`].
    pub fn on(&self, name: &str, target: &Target) -> Result<Vec<&Requirement>> {
        let environment = target.markers()?;
        Ok(self.requires.iter().filter(|r| r.name.as_ref() == name && r.evaluate_markers(&environment, &[])).collect())
    }
}

/// Whether pip takes `version` for `requirement`: a local label (`+cpu.libuv`) satisfies `==2.6.0` (PEP 440). What
/// names a URL instead of versions is held by none.
pub fn satisfies(requirement: &Requirement, version: &Version) -> bool {
    match &requirement.version_or_url {
        None => true,
        Some(pep508_rs::VersionOrUrl::VersionSpecifier(s)) => s.contains(version),
        Some(pep508_rs::VersionOrUrl::Url(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_local_label_satisfies_an_exact_pin_and_a_pin_with_a_label_is_exact() {
        let holds = |r: &str, v: &str| satisfies(&requirement(r).unwrap(), &v.parse().unwrap());
        assert!(holds("torch==2.6.0", "2.6.0+cpu.libuv"));
        assert!(holds("torch (>=2.0,<3)", "2.6.0+cpu.libuv"));
        assert!(!holds("torch==2.5.1", "2.6.0+cpu.libuv"));
        assert!(!holds("torch==2.6.0+cu124", "2.6.0+cpu.libuv"));
        assert!(holds("torch", "2.6.0"));
    }

    #[test]
    fn a_name_that_ends_with_a_separator_is_refused_and_others_are_read() {
        for bad in ["a-:", "a-", "a[b-]", "a-.;x", "-"] {
            assert!(requirement(bad).is_err(), "{bad}");
        }
        for good in ["a-b", "a_b.c>=1.0", "a[b-c]==1.*", "torch ; sys_platform == 'win-'"] {
            assert!(requirement(good).is_ok(), "{good}: {:?}", requirement(good));
        }
    }

    #[test]
    fn only_headers_of_metadata_count_and_markers_are_those_of_the_torch() {
        let text = "Name: A_b\nVersion: 1\nRequires-Dist: torch==2.6.0; sys_platform == 'win32'\nRequires-Dist: torch>=2; extra == 'x'\n\nRequires-Dist: torch==0\n";
        let metadata = Metadata::parse(text);
        assert_eq!((metadata.name.as_str(), metadata.requires.len()), ("a-b", 2));
        let on = |system| {
            let target = Target { system, machine: "x86_64".into(), python: Some("3.11".into()) };
            metadata.on("torch", &target).unwrap().len()
        };
        assert_eq!((on(System::Windows), on(System::Linux)), (1, 0));
    }
}
