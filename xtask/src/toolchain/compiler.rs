//! The C and C++ compilers, identified by what they say and by the bytes of every program and file that makes the
//! output: compiler proper, assembler, linker, start files, the C and C++ libraries.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::platform;

/// Folders of a machine that compilers, linkers and CMake look into by themselves: builds with a locked toolchain do
/// not see what is in them.
const HIDDEN: &[&str] = &[
    "/usr/include",
    "/usr/local/include",
    "/usr/lib/gcc",
    "/usr/lib/cmake",
    "/usr/lib/pkgconfig",
    "/usr/lib/x86_64-linux-gnu/cmake",
    "/usr/lib/x86_64-linux-gnu/pkgconfig",
    "/usr/lib/aarch64-linux-gnu/cmake",
    "/usr/lib/aarch64-linux-gnu/pkgconfig",
    "/usr/lib64/cmake",
    "/usr/lib64/pkgconfig",
    "/usr/share/cmake",
    "/usr/share/pkgconfig",
    "/usr/local/lib/cmake",
    "/usr/local/lib/pkgconfig",
    "/usr/local/share/cmake",
    "/usr/local/share/pkgconfig",
];

/// The folders of this machine that are hidden from what is built with a locked toolchain.
pub(super) fn hidden() -> Vec<PathBuf> {
    HIDDEN.iter().map(PathBuf::from).filter(|path| path.is_dir()).collect()
}

/// Who made a compiler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// GCC.
    Gcc,
    /// Clang.
    Clang,
    /// Microsoft's `cl`.
    Msvc,
}

impl Family {
    /// The name that people know it by.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gcc => "GCC",
            Self::Clang => "Clang",
            Self::Msvc => "MSVC",
        }
    }
}

/// A pair of compilers and what is known of them.
#[derive(Debug, Clone, Serialize)]
pub struct Compiler {
    /// Path of the C compiler.
    #[serde(skip)]
    pub cc: PathBuf,
    /// Path of the C++ compiler.
    #[serde(skip)]
    pub cxx: PathBuf,
    /// Whose options and flags it understands.
    pub family: Family,
    /// Version, such as `12.2.0`.
    pub version: String,
    /// What `--version` says first.
    pub banner: String,
    /// What `-dumpmachine` says: `x86_64-linux-gnu`.
    pub target: String,
    /// First line of `ld --version`.
    pub linker: String,
    /// First line of the assembler's `--version`; for Clang, which assembles by itself, the banner.
    pub assembler: String,
    /// What the C library calls itself.
    pub libc: String,
    /// SHA-256 of every file that decides what comes out, by the name the driver knows it under.
    pub files: BTreeMap<String, String>,
    /// What it must find in the environment (MSVC: where its headers and libraries are).
    #[serde(skip)]
    pub env: Vec<(OsString, OsString)>,
    /// The folder of the toolchain, where it is one of locked packages ([`super::locked`]).
    #[serde(skip)]
    pub locked: Option<PathBuf>,
}

#[cfg(test)]
impl Compiler {
    /// One that is only asked who it is.
    pub fn called(family: Family, version: &str) -> Self {
        Self {
            cc: "cc".into(),
            cxx: "c++".into(),
            family,
            version: version.into(),
            banner: String::new(),
            target: String::new(),
            linker: String::new(),
            assembler: String::new(),
            libc: String::new(),
            files: BTreeMap::new(),
            env: Vec::new(),
            locked: None,
        }
    }
}

impl Compiler {
    /// Folders that must be on PATH for the compilers: their own, and what they name.
    pub fn folders(&self) -> Vec<PathBuf> {
        let own = [&self.cc, &self.cxx].into_iter().filter_map(|tool| tool.parent().map(Path::to_owned));
        let named = self.env.iter().rev().find(|(name, _)| name.eq_ignore_ascii_case("PATH"));
        own.chain(named.into_iter().flat_map(|(_, path)| std::env::split_paths(path))).collect()
    }

    /// What the compilers and what they make need in their environment beside PATH: where headers and libraries
    /// are, what the platform wants. `dir` is for what is temporary.
    pub fn environment(&self, dir: &Path) -> Vec<(String, String)> {
        let of_compiler = self.env.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("PATH"));
        let of_compiler =
            of_compiler.map(|(k, v)| (k.to_string_lossy().into_owned(), v.to_string_lossy().into_owned()));
        of_compiler.chain(platform::own_variables(dir)).collect()
    }

    /// Folders of this machine that what is built with these compilers does not see.
    pub fn hidden(&self) -> Vec<PathBuf> {
        if self.locked.is_some() { hidden() } else { Vec::new() }
    }

    /// What decides which objects come out: part of every key that depends on the compiler. Where the
    /// files stand on this machine is no part of it.
    pub fn identity(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}
