//! The C and C++ compilers: found as `cc` finds them (`CC`, `CXX`, the platform's usual names),
//! identified by what the driver says and by its bytes.

use std::path::PathBuf;
use std::process::Command;
use std::str::FromStr;

use pep440_rs::{Version, VersionSpecifiers};
use serde::Serialize;

use crate::error::{Error, Result};
use crate::platform;
use crate::recipe::ToolchainFile;
use crate::store::digest_file;

/// Who made a compiler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// GCC.
    Gcc,
    /// Clang.
    Clang,
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
    /// Family.
    pub family: Family,
    /// Version, such as `12.2.0`.
    pub version: String,
    /// What `--version` says first.
    pub banner: String,
    /// Target triple.
    pub target: String,
    /// First line of `ld --version`.
    pub linker: String,
    /// SHA-256 of the C++ driver's bytes.
    pub driver_sha256: String,
    /// SHA-256 of the compiler proper's (`cc1plus`, or the driver's own for Clang) bytes.
    pub proper_sha256: String,
}

impl Compiler {
    /// Finds the compilers and checks them against the recipe's demands.
    pub fn find(demands: &ToolchainFile) -> Result<Self> {
        let missing = |what: &str| {
            Error::world("no-compiler", format!("no {what} compiler was found on this machine"))
                .next("install one: `apt-get install g++` (Debian, Ubuntu), `dnf install gcc-c++` (Fedora, RHEL)")
                .next("or name one: CC=… CXX=… cargo xtask build-torch")
        };
        let pick = |variable: &str, names: &[&str]| -> Option<PathBuf> {
            match std::env::var(variable) {
                Ok(v) if !v.trim().is_empty() => platform::which(v.trim()),
                _ => names.iter().find_map(|n| platform::which(n)),
            }
        };
        let cc = pick("CC", &["cc", "gcc", "clang"]).ok_or_else(|| missing("C"))?;
        let cxx = pick("CXX", &["c++", "g++", "clang++"]).ok_or_else(|| missing("C++"))?;
        let ask = |args: &[&str]| -> Result<String> {
            let out = Command::new(&cxx)
                .args(args)
                .env("LC_ALL", "C")
                .output()
                .map_err(|e| Error::world("compiler", format!("cannot run {}: {e}", cxx.display())))?;
            Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned())
        };
        let banner = ask(&["--version"])?.lines().next().unwrap_or_default().to_owned();
        let family = if banner.to_lowercase().contains("clang") { Family::Clang } else { Family::Gcc };
        let version = match family {
            Family::Gcc => ask(&["-dumpfullversion", "-dumpversion"])?,
            Family::Clang => ask(&["-dumpversion"])?,
        };
        let (range, name) = match family {
            Family::Gcc => (&demands.gcc, "GCC"),
            Family::Clang => (&demands.clang, "Clang"),
        };
        if let (Some(range), Ok(v)) = (range, Version::from_str(&version))
            && let Ok(specifiers) = VersionSpecifiers::from_str(range)
            && !specifiers.contains(&v)
        {
            return Err(Error::world(
                "compiler-version",
                format!("{} is {name} {version}; the recipe demands {name} {range}", cxx.display()),
            )
            .next(format!("install a {name} in that range and name it: CC=… CXX=… cargo xtask build-torch")));
        }
        let proper = match family {
            Family::Gcc => PathBuf::from(ask(&["-print-prog-name=cc1plus"])?),
            Family::Clang => cxx.clone(),
        };
        let real = |p: &PathBuf| fs_err::canonicalize(p).unwrap_or_else(|_| p.clone());
        Ok(Self {
            linker: ask(&["-Wl,--version"]).unwrap_or_default().lines().next().unwrap_or_default().to_owned(),
            target: ask(&["-dumpmachine"])?,
            driver_sha256: digest_file(&real(&cxx))?.0,
            proper_sha256: digest_file(&real(&proper))?.0,
            cc,
            cxx,
            family,
            version,
            banner,
        })
    }

    /// What decides which objects come out: part of every key that depends on the compiler.
    pub fn identity(&self) -> String {
        format!("{} {} {} {} {}", self.banner, self.target, self.linker, self.driver_sha256, self.proper_sha256)
    }
}
