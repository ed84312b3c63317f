//! The Python interpreter that the wheel is built for.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use pep440_rs::{Version, VersionSpecifiers};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::platform;
use crate::recipe::{Recipe, System};

/// A Python interpreter and what is known of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Python {
    /// Path of the interpreter.
    #[serde(skip_serializing)]
    pub executable: PathBuf,
    /// Full version, such as `3.11.7`.
    pub version: String,
    /// `cpython` and nothing else.
    pub implementation: String,
    /// Folder of `Python.h`.
    #[serde(skip_serializing)]
    pub include: PathBuf,
    /// EXT_SUFFIX: what extension modules end with.
    pub ext_suffix: String,
    /// Machine: `x86_64`, `aarch64`.
    pub machine: String,
    /// SHA-256 of `pyconfig.h`, which decides the ABI.
    #[serde(default)]
    pub pyconfig_sha256: String,
    /// SHA-256 of the interpreter's own file.
    #[serde(default)]
    pub sha256: String,
    /// Whether it is a free-threaded build.
    pub free_threaded: bool,
}

/// The interpreter that `program` with `arguments` starts, if it is of the version `minor`.
fn of_version(program: &Path, arguments: &[&str], minor: &str) -> Option<PathBuf> {
    let ask = "import sys; print(sys.executable, '%d.%d' % sys.version_info[:2], sep='\\n')";
    let out = Command::new(program).args(arguments).args(["-I", "-c", ask]).output().ok()?;
    let text = String::from_utf8(out.stdout).ok()?;
    let mut lines = text.lines();
    let (executable, version) = (lines.next()?, lines.next()?);
    (version == minor).then(|| PathBuf::from(executable))
}

/// `python3` is `python3.11` where it is a link to it in one folder: an interpreter has one name in keys. A
/// link to another folder stays, as an environment has them.
fn one_name(mut executable: PathBuf) -> PathBuf {
    const MOST_LINKS: usize = 8;
    for _ in 0..MOST_LINKS {
        match std::fs::read_link(&executable) {
            Ok(to) if to.components().count() == 1 => executable.set_file_name(to),
            _ => break,
        }
    }
    executable
}

/// A version to the minor one: `3.11` of `3.11.7`.
pub fn minor_of(version: &str) -> String {
    version.splitn(3, '.').take(2).collect::<Vec<_>>().join(".")
}

/// The machine as recipes call it, of what `platform.machine()` says: Windows and macOS have names of their own.
pub fn machine_of(said: &str) -> &str {
    match said {
        "AMD64" => "x86_64",
        "arm64" | "ARM64" => "aarch64",
        said => said,
    }
}

impl Python {
    /// Finds `wanted` (a path, a name, or a version such as `3.12`), else the default `python3`,
    /// and checks it against the recipe.
    ///
    /// # Errors
    /// The world: there is none, or it does not answer. Bad input: it is not one of the recipe's.
    pub fn find(wanted: Option<&str>, recipe: &Recipe) -> Result<Self> {
        let executable = Self::locate(wanted)?;
        const ASK: &str = "import json,sys,sysconfig,platform;print(json.dumps(dict(executable=sys.executable,version=platform.python_version(),\
implementation=sys.implementation.name,include=sysconfig.get_paths()['include'],ext_suffix=sysconfig.get_config_var('EXT_SUFFIX') or '',\
machine=platform.machine(),free_threaded=bool(sysconfig.get_config_var('Py_GIL_DISABLED')))))";
        let out = Command::new(&executable)
            .args(["-I", "-c", ASK])
            .output()
            .map_err(|e| Error::world("python", format!("cannot run {}: {e}", executable.display())))?;
        let text = String::from_utf8_lossy(&out.stdout);
        let mut python: Self = serde_json::from_str(text.trim()).map_err(|_| {
            Error::world(
                "python",
                format!(
                    "{} does not answer like a Python 3: {}",
                    executable.display(),
                    String::from_utf8_lossy(&out.stderr).lines().last().unwrap_or("no message")
                ),
            )
        })?;
        python.machine = machine_of(&python.machine).into();
        // A shim (pyenv, asdf) may stand in front: what runs is what sys.executable names.
        if python.executable.as_os_str().is_empty() {
            python.executable = executable;
        }
        python.executable = one_name(python.executable);
        python.demand(recipe)?;
        python.pyconfig_sha256 =
            crate::store::digest_file(&python.include.join("pyconfig.h")).map(|d| d.0).unwrap_or_default();
        python.sha256 = fs_err::canonicalize(&python.executable)
            .map_err(Error::from)
            .and_then(|p| crate::store::digest_file(&p))
            .map(|d| d.0)
            .unwrap_or_default();
        Ok(python)
    }

    fn locate(wanted: Option<&str>) -> Result<PathBuf> {
        const NAMES: [&str; 2] = ["python3", "python"];
        let not_found = |what: &str| {
            let install = match System::here() {
                System::Linux => "install Python with its headers: `apt-get install python3-dev` (Debian, Ubuntu)",
                System::Windows => "install it: `winget install Python.Python.3.11`",
                System::Macos => "install it: `brew install python@3.11`",
            };
            Error::world("no-python", format!("there is no {what} on this machine"))
                .next(install)
                .next("or name one: --python PATH-OR-VERSION")
        };
        match wanted {
            None => NAMES.iter().find_map(|n| platform::which(n)).ok_or_else(|| not_found("python3")),
            Some(w) if w.chars().next().is_some_and(|c| c.is_ascii_digit()) => {
                let minor = minor_of(w);
                let named = platform::which(&format!("python{minor}"));
                // Windows has no such names: the one on PATH may be of that version, or its launcher knows it.
                let by_asking = || NAMES.iter().find_map(|name| of_version(&platform::which(name)?, &[], &minor));
                let launched = || of_version(&platform::which("py")?, &[&format!("-{minor}")], &minor);
                named.or_else(by_asking).or_else(launched).ok_or_else(|| not_found(&format!("python{minor}")))
            }
            Some(w) => platform::which(w).ok_or_else(|| not_found(&format!("Python '{w}'"))),
        }
    }

    fn demand(&self, recipe: &Recipe) -> Result<()> {
        let who = format!("{} is Python {}", self.executable.display(), self.version);
        if self.implementation != "cpython" || self.free_threaded {
            return Err(Error::misuse(
                "python-kind",
                format!(
                    "{who} ({}{}); PyTorch wheels are for CPython with the GIL",
                    self.implementation,
                    if self.free_threaded { ", free-threaded" } else { "" }
                ),
            )
            .next("choose another with --python"));
        }
        let fits = match (Version::from_str(&self.version), VersionSpecifiers::from_str(&recipe.python.requires)) {
            (Ok(version), Ok(range)) => range.contains(&version),
            _ => false,
        };
        if !fits {
            return Err(Error::misuse(
                "python-version",
                format!("{who}; the recipe {} is for Python {}", recipe.name, recipe.python.requires),
            )
            .next(format!("choose another with --python; the lock covers {}", recipe.python.versions.join(", "))));
        }
        if !recipe.python.versions.contains(&self.minor()) {
            return Err(Error::misuse("python-not-locked", format!("{who}; the lock of {} covers {}", recipe.name, recipe.python.versions.join(", ")))
                .next(format!("add \"{}\" to python.versions of the recipe and run `cargo xtask lock`, or choose another with --python", self.minor())));
        }
        Ok(())
    }

    /// An error if the headers are missing.
    ///
    /// # Errors
    /// The world: there is no `Python.h`.
    pub fn check_headers(&self) -> Result<()> {
        if self.include.join("Python.h").is_file() {
            return Ok(());
        }
        Err(Error::world(
            "no-python-headers",
            format!(
                "{} has no headers: {} does not exist",
                self.executable.display(),
                self.include.join("Python.h").display()
            ),
        )
        .next(format!(
            "install them: `apt-get install python{}-dev` (Debian, Ubuntu), `dnf install python3-devel` (Fedora, RHEL)",
            self.minor()
        ))
        .next("or choose a Python that has them with --python"))
    }

    /// Its version to the minor one, which is what an ABI is tied to: `3.11`.
    pub fn minor(&self) -> String {
        minor_of(&self.version)
    }

    /// Its Python tag (PEP 425): `cp311`. One without a global lock has the same; the ABI tag tells them apart.
    pub fn tag(&self) -> String {
        format!("cp{}", self.minor().replace('.', ""))
    }

    /// What decides what is built for it: part of keys.
    pub fn identity(&self) -> String {
        format!(
            "{} {} {} {} {} {}",
            self.implementation, self.version, self.ext_suffix, self.machine, self.pyconfig_sha256, self.sha256
        )
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_link_beside_the_interpreter_is_the_interpreter_and_one_from_elsewhere_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("python3.11"), "").unwrap();
        symlink("python3.11", at("python3")).unwrap();
        symlink("python3", at("python")).unwrap();
        std::fs::create_dir(at("environment")).unwrap();
        symlink(at("python3"), at("environment/python")).unwrap();
        symlink("python", at("environment/python3")).unwrap();
        symlink("loop", at("loop")).unwrap();
        assert_eq!(one_name(at("python")), at("python3.11"));
        assert_eq!(one_name(at("environment/python3")), at("environment/python"));
        assert_eq!(one_name(at("loop")), at("loop"));
    }
}
