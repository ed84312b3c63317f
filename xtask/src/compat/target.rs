//! What a torch is for: system, machine, Python. What fits it is asked here and nowhere else.

use pep440_rs::Version;
use pep508_rs::{ExtraName, MarkerEnvironment};
use serde::Serialize;

use crate::error::Result;
use crate::recipe::{System, pinned};
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
    /// The others, as written.
    pub unreadable: Vec<String>,
    /// Extras of it that are asked for: their requirements count too.
    pub extras: Vec<ExtraName>,
}

impl Metadata {
    /// Reads a METADATA file, or an older PKG-INFO.
    pub fn parse(text: &str) -> Self {
        let headers = wheel::Metadata::lenient(text);
        let value = |key: &str| headers.get(key).map(str::to_owned);
        let (mut requires, mut unreadable) = (Vec::new(), Vec::new());
        for text in headers.all("Requires-Dist") {
            match requirement(text) {
                Ok(read) => requires.push(read),
                Err(_) => unreadable.push(text.to_owned()),
            }
        }
        Self {
            name: headers.get("Name").map(wheel::normalize).unwrap_or_default(),
            version: value("Version").unwrap_or_default(),
            requires_python: value("Requires-Python"),
            requires,
            unreadable,
            extras: Vec::new(),
        }
    }

    /// The requirements on `name` that count for `target`, without those of extras that nobody asked for.
    ///
    /// # Errors
    /// As [`Target::markers`].
    pub fn on(&self, name: &str, target: &Target) -> Result<Vec<&Requirement>> {
        let environment = target.markers()?;
        let counts = |r: &&Requirement| r.name.as_ref() == name && r.evaluate_markers(&environment, &self.extras);
        Ok(self.requires.iter().filter(counts).collect())
    }

    /// The requirements on others than torch that are met by one version alone, as far as they count for `target`.
    ///
    /// # Errors
    /// As [`Target::markers`].
    pub fn exact(&self, target: &Target) -> Result<Vec<Requirement>> {
        let environment = target.markers()?;
        let counts = |r: &&Requirement| {
            r.name.as_ref() != "torch" && pinned(r).is_some() && r.evaluate_markers(&environment, &self.extras)
        };
        Ok(self.requires.iter().filter(counts).cloned().collect())
    }

    /// The requirements on `name` that cannot be read, without those that a marker leaves out for `target`.
    ///
    /// # Errors
    /// As [`Target::markers`].
    pub fn unreadable_on(&self, name: &str, target: &Target) -> Result<Vec<&str>> {
        let environment = target.markers()?;
        let counts = |text: &str| {
            let marker = text.split_once(';').and_then(|(_, marker)| requirement(&format!("{name} ; {marker}")).ok());
            marker.is_none_or(|m| m.evaluate_markers(&environment, &self.extras))
        };
        let all = self.unreadable.iter().map(String::as_str);
        Ok(all.filter(|text| begins_with(text, name) && counts(text)).collect())
    }
}

/// Whether the name that a requirement begins with is `name` (normalized), whatever follows it.
fn begins_with(text: &str, name: &str) -> bool {
    let ends = |c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c));
    let text = text.trim_start();
    let own = &text[..text.find(ends).unwrap_or(text.len())];
    wheel::normalize(own.trim_end_matches(['-', '_', '.'])) == name
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

/// The same of a version that may not be known; `None` where it is not, and `requirement` names versions or a URL.
pub fn satisfied_by(requirement: &Requirement, version: Option<&Version>) -> Option<bool> {
    match (version, &requirement.version_or_url) {
        (Some(version), _) => Some(satisfies(requirement, version)),
        (None, None) => Some(true),
        (None, Some(pep508_rs::VersionOrUrl::VersionSpecifier(s))) if s.is_empty() => Some(true),
        (None, Some(_)) => None,
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
    fn against_an_unknown_version_only_a_bare_name_holds() {
        let holds = |r: &str, v: Option<&Version>| satisfied_by(&requirement(r).unwrap(), v);
        let known: Version = "2.6.0".parse().unwrap();
        assert_eq!((holds("torch", None), holds("torch", Some(&known))), (Some(true), Some(true)));
        assert_eq!((holds("torch>=2", None), holds("torch>=2", Some(&known))), (None, Some(true)));
        assert_eq!((holds("torch<2", None), holds("torch<2", Some(&known))), (None, Some(false)));
        let url = "torch @ https://example.com/torch.whl";
        assert_eq!((holds(url, None), holds(url, Some(&known))), (None, Some(false)));
    }

    #[test]
    fn what_cannot_be_read_is_kept_and_counts_for_torch_unless_its_marker_says_otherwise() {
        let target = Target { system: System::Linux, machine: "x86_64".into(), python: Some("3.11".into()) };
        let of_torch = |requirement: &str| {
            let metadata = Metadata::parse(&format!("Name: x\nVersion: 1\nRequires-Dist: {requirement}\n"));
            assert_eq!(metadata.unreadable, [requirement]);
            metadata.unreadable_on("torch", &target).unwrap().len()
        };
        for one in ["torch>=1.2.*", "Torch (>=1.2.*)", "torch 2.6", "torch>=1.2.* ; sys_platform == 'linux'"] {
            assert_eq!(of_torch(one), 1, "{one}");
        }
        for none in ["torchvision>=1.2.*", "numpy>=1.2.*", "torch>=1.2.* ; sys_platform == 'win32'"] {
            assert_eq!(of_torch(none), 0, "{none}");
        }
        assert_eq!(of_torch("torch>=1.2.* ; extra == 'old'"), 0);
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
