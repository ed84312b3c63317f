//! Finds the C and C++ compilers as `cc` finds them: `CC`, `CXX`, the platform's usual names; on Windows without
//! those, Visual Studio's.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use pep440_rs::{Operator, Version, VersionSpecifier, VersionSpecifiers};
use rayon::prelude::*;

use super::compiler::{Compiler, Family};
use super::msvc;
use crate::error::{Error, Result};
use crate::platform;
use crate::recipe::ToolchainFile;
use crate::store::digest_file;

/// Programs that the driver starts.
const PROGRAMS: &[&str] = &["cc1", "cc1plus", "collect2", "as", "ld", "ar", "ranlib", "objcopy", "strip"];

/// Files that end in what is linked, or that the linker resolves symbols with.
const LINKED: &[&str] = &[
    "crt1.o",
    "crti.o",
    "crtn.o",
    "Scrt1.o",
    "crtbegin.o",
    "crtbeginS.o",
    "crtend.o",
    "crtendS.o",
    "libc.so.6",
    "libc_nonshared.a",
    "libm.so.6",
    "libgcc.a",
    "libgcc_s.so.1",
    "libstdc++.so",
    "libgomp.so",
];

impl Compiler {
    /// Finds the compilers and checks them against the recipe's demands.
    ///
    /// # Errors
    /// The world: there are none, or they are outside the recipe's range of versions.
    pub fn find(demands: &ToolchainFile) -> Result<Self> {
        let named = ["CC", "CXX"].iter().any(|v| std::env::var_os(v).is_some_and(|v| !v.is_empty()));
        let found = if cfg!(windows) && !named { msvc::find()? } else { Self::find_driver()? };
        found.meet(demands)?;
        Ok(found)
    }

    /// An error if this compiler is not in the recipe's range for its family. Apple numbers its Clang in its own way:
    /// that one is held against no range, as in upstream's list file (pytorch#184770).
    fn meet(&self, demands: &ToolchainFile) -> Result<()> {
        let range = match self.family {
            Family::Clang if self.banner.starts_with("Apple") => return Ok(()),
            Family::Gcc => &demands.gcc,
            Family::Clang => &demands.clang,
            Family::Msvc => &demands.msvc,
        };
        range.as_ref().map_or(Ok(()), |range| self.demand(range, &demands.tried))
    }

    /// An error if this compiler is not in `range` (PEP 440): older than upstream demands, or newer than what the
    /// recipe is known to compile with.
    fn demand(&self, range: &str, tried: &[String]) -> Result<()> {
        let (name, version, path) = (self.family.name(), &self.version, self.cxx.display());
        let wrong = |what: String| Error::world("compiler-version", what);
        let (Ok(own), Ok(specifiers)) = (Version::from_str(version), VersionSpecifiers::from_str(range)) else {
            return Err(wrong(format!(
                "{path} calls its version '{version}', which cannot be held against {name} {range}"
            )));
        };
        if specifiers.contains(&own) {
            return Ok(());
        }
        let said = format!("{path} is {name} {version}; the recipe demands {name} {range}");
        let ends_below = |s: &VersionSpecifier| {
            matches!(s.operator(), Operator::LessThan | Operator::LessThanEqual) && !s.contains(&own)
        };
        let another = |e: Error, how: String| match self.family {
            Family::Msvc => msvc::ANOTHER_VERSION.iter().fold(e, |e, step| e.next(*step)),
            Family::Gcc | Family::Clang => e.next(how),
        };
        if specifiers.iter().any(ends_below) {
            let known = if tried.is_empty() { String::new() } else { format!(" (tried: {})", tried.join(", ")) };
            let what = format!("{said}: this one is too new, the sources are not known to compile with it{known}");
            let how = format!(
                "install an older {name} beside it and name it, as in CC=gcc-14 CXX=g++-14 cargo xtask build-torch"
            );
            return Err(another(wrong(what), how)
                .next("or raise the upper end in the recipe's [toolchain], and see whether it compiles"));
        }
        let how = format!("install a {name} in that range and name it: CC=… CXX=… cargo xtask build-torch");
        Err(another(wrong(said), how))
    }

    /// Finds compilers of GCC's kind, which are asked by GCC's options.
    fn find_driver() -> Result<Self> {
        let pick = |variable: &str, language: &str, names: &[&str]| -> Result<PathBuf> {
            let named = std::env::var_os(variable).unwrap_or_default().to_string_lossy().trim().to_owned();
            let found = match named.as_str() {
                "" => names.iter().find_map(|n| platform::which(n)),
                named => platform::which(named),
            };
            // It is started in other folders than this one.
            found.map(std::path::absolute).transpose()?.ok_or_else(|| missing(variable, &named, language))
        };
        let cc = pick("CC", "C", &["cc", "gcc", "clang"])?;
        let cxx = pick("CXX", "C++", &["c++", "g++", "clang++"])?;
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
            Family::Clang | Family::Msvc => ask(&["-dumpversion"])?,
        };
        let first_line = |text: String| text.lines().next().unwrap_or_default().to_owned();
        let files = files(&cc, &cxx)?;
        let libc = files.get("libc.so.6").map(|(path, _)| libc_banner(path)).unwrap_or_default();
        let assembler = match files.get("as") {
            Some((path, _)) => Command::new(path)
                .arg("--version")
                .env("LC_ALL", "C")
                .output()
                .map(|o| first_line(String::from_utf8_lossy(&o.stdout).into_owned()))
                .unwrap_or_default(),
            None => banner.clone(),
        };
        Ok(Self {
            linker: first_line(ask(&["-Wl,--version"]).unwrap_or_default()),
            target: ask(&["-dumpmachine"])?,
            assembler,
            libc,
            files: files.into_iter().map(|(name, (_, sha256))| (name, sha256)).collect(),
            cc,
            cxx,
            family,
            version,
            banner,
            env: Vec::new(),
            locked: None,
        })
    }
}

/// What is said where there is no compiler of `language`, which `variable` names, if `named` is not empty.
fn missing(variable: &str, named: &str, language: &str) -> Error {
    let install = "install one: `apt-get install g++` (Debian, Ubuntu), `dnf install gcc-c++` (Fedora, RHEL)";
    if named.is_empty() {
        return Error::world("no-compiler", format!("no {language} compiler was found on this machine"))
            .next(install)
            .next("or name one: CC=… CXX=… cargo xtask build-torch");
    }
    let e = Error::world("no-compiler", format!("{variable}={named} names no {language} compiler of this machine"));
    let e = if named.contains(char::is_whitespace) {
        e.next("name the compiler alone, without arguments: a compiler cache is put before it by this program")
    } else {
        e.next("name a program that is on PATH, or its path")
    };
    e.next(format!("or run it without {variable}: what is on PATH is taken")).next(install)
}

/// The files behind a driver, with their SHA-256: the drivers themselves, [`PROGRAMS`], [`LINKED`].
/// What this driver does not have (Clang has no `cc1plus`) is left out.
fn files(cc: &Path, cxx: &Path) -> Result<BTreeMap<String, (PathBuf, String)>> {
    let ask = |question: String| -> Option<PathBuf> {
        let out = Command::new(cxx).arg(question).env("LC_ALL", "C").output().ok()?;
        let answer = PathBuf::from(String::from_utf8_lossy(&out.stdout).trim());
        // A driver that knows no path answers with the name.
        if answer.is_absolute() { Some(answer) } else { None }
    };
    let mut questions: Vec<(&str, Option<PathBuf>)> = vec![("cc", Some(cc.to_owned())), ("c++", Some(cxx.to_owned()))];
    questions.extend(PROGRAMS.iter().chain(LINKED).map(|name| (*name, None)));
    questions
        .into_par_iter()
        .filter_map(|(name, known)| {
            let path = known.or_else(|| {
                if LINKED.contains(&name) {
                    ask(format!("-print-file-name={name}"))
                } else {
                    ask(format!("-print-prog-name={name}")).or_else(|| platform::which(name))
                }
            })?;
            let real = fs_err::canonicalize(&path).ok().filter(|p| p.is_file())?;
            Some(digest_file(&real).map(|(sha256, _)| (name.to_owned(), (real, sha256))))
        })
        .collect()
}

/// `GNU C Library (Debian GLIBC 2.36-9+deb12u13) stable release version 2.36.`, as the library
/// holds it; empty where it holds no such line.
fn libc_banner(library: &Path) -> String {
    let Ok(bytes) = fs_err::read(library) else { return String::new() };
    let Some(at) = memchr::memmem::find(&bytes, b"GNU C Library (") else { return String::new() };
    let line: Vec<u8> = bytes[at..].iter().copied().take(200).take_while(|b| *b >= b' ').collect();
    String::from_utf8_lossy(&line).trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gcc(version: &str) -> Compiler {
        Compiler { cc: "/usr/bin/gcc".into(), cxx: "/usr/bin/g++".into(), ..Compiler::called(Family::Gcc, version) }
    }

    #[test]
    fn a_range_has_two_ends_and_each_says_what_is_wrong() {
        for good in ["11.3.0", "12.2.0", "14.3.0", "14"] {
            gcc(good).demand(">=11.3, <15", &[]).unwrap();
        }
        let old = gcc("11.2.0").demand(">=11.3, <15", &[]).unwrap_err();
        assert!(old.what().ends_with("GCC 11.2.0; the recipe demands GCC >=11.3, <15"), "{old}");
        for new in ["15.0.1", "15.2.0", "16.1.0"] {
            let e = gcc(new).demand(">=11.3, <15", &["gcc 12.2".to_owned()]).unwrap_err();
            assert!(e.what().contains(&format!("is GCC {new};")) && e.what().contains("too new"), "{e}");
            assert!(e.what().ends_with("to compile with it (tried: gcc 12.2)"), "{e}");
            assert!(e.next_steps().iter().any(|n| n.contains("CC=gcc-14")), "{e}");
        }
        assert!(gcc("trunk!").demand(">=9.3", &[]).unwrap_err().what().contains("'trunk!'"));
    }

    #[test]
    fn apples_clang_has_numbers_of_its_own() {
        let demands = ToolchainFile { clang: Some(">=16".into()), ..ToolchainFile::default() };
        let of = |banner: &str| Compiler { banner: banner.into(), ..Compiler::called(Family::Clang, "15.0.0") };
        of("Apple clang version 15.0.0 (clang-1500.3.9.4)").meet(&demands).unwrap();
        for other in ["Debian clang version 15.0.6", "Homebrew clang version 15.0.7", "clang version 15.0.7"] {
            assert!(of(other).meet(&demands).unwrap_err().what().contains("Clang >=16"), "{other}");
        }
    }

    #[test]
    fn nobody_on_windows_is_told_to_name_a_compiler_in_front_of_a_command() {
        for range in [">=19.29", ">=19.10, <19.16"] {
            let e = Compiler::called(Family::Msvc, "19.16.27054").demand(range, &[]).unwrap_err();
            assert!(e.next_steps().iter().any(|step| step.contains("developer prompt")), "{e}");
            assert!(!e.next_steps().iter().any(|step| step.contains("CC=")), "{e}");
        }
    }
}
