//! Private Python environments, installed from the store alone, every wheel by its hash; and where things are in
//! them.

use std::path::{Path, PathBuf};

use super::build::Build;
use crate::error::{Context, Error, Result};
use crate::recipe::{Coordinate, Locked};
use crate::store::Parts;
use crate::toolchain::Process;

/// The inputs of an environment with these wheels: what decides what is built with it, wherever it stands.
pub fn inputs(build: &Build<'_>, wheels: &[Locked], parts: &mut Parts) {
    parts.known_as("python", &build.python.identity(), &build.python.version);
    for wheel in wheels {
        match &wheel.coordinate {
            Some(Coordinate::Pypi { name, version, .. }) => {
                parts.known_as(format!("package {name}"), &wheel.sha256, version);
            }
            _ => parts.digest("package", &wheel.sha256),
        }
    }
}

/// Makes an environment at `out`.
///
/// # Errors
/// The world: pip or venv fails, or a wheel is not in the store.
pub fn make(build: &Build<'_>, out: &Path, scratch: &Path, wheels: &[Locked]) -> Result<()> {
    let (folder, requirements, pip) = wheel_folder(build, scratch, wheels)?;
    let base = |program: &Path| {
        Process::new(program)
            .env("LC_ALL", "C.UTF-8")
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", scratch)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("PIP_CONFIG_FILE", if cfg!(windows) { "nul" } else { "/dev/null" })
            .env("PIP_NO_INPUT", "1")
    };
    // --copies would make a second interpreter; a link is what venv does on Unix anyway.
    base(&build.python.executable)
        .args(["-m", "venv", "--without-pip"])
        .arg(out)
        .check("venv", None)
        .map_err(|e| e.next("on Debian and Ubuntu: `apt-get install python3-venv`"))?;
    base(&python(out))
        .arg(pip.join("pip"))
        .args([
            "--isolated",
            "--disable-pip-version-check",
            "install",
            "--quiet",
            "--no-index",
            "--no-deps",
            "--require-hashes",
            "--no-cache-dir",
            "--no-compile",
            "--find-links",
        ])
        .arg(&folder)
        .arg("--requirement")
        .arg(&requirements)
        .check("pip", None)
        .doing(|| "installing the locked Python packages".into())?;
    relocate(out)
}

/// Where the torch of an environment comes from.
pub enum TorchFrom<'a> {
    /// A wheel; everything that it needs is among the recipe's verify packages.
    Wheel(&'a Path),
    /// `torch==2.6.0` of pip's index, with what that one needs.
    Index(&'a str),
}

/// What pip installed: the parts of its report (`--report`, version 1) that are read here.
#[derive(Debug, serde::Deserialize)]
pub struct Installed {
    /// What was installed, a package each.
    #[serde(default)]
    pub install: Vec<InstalledPackage>,
}

/// One package that pip installed.
#[derive(Debug, serde::Deserialize)]
pub struct InstalledPackage {
    /// Name and version.
    pub metadata: PackageMetadata,
    /// Where it came from.
    pub download_info: DownloadInfo,
}

/// Name and version of a package.
#[derive(Debug, serde::Deserialize)]
pub struct PackageMetadata {
    /// Name, as the package spells it.
    pub name: String,
    /// Version, as installed.
    pub version: String,
}

/// Where a package came from.
#[derive(Debug, serde::Deserialize)]
pub struct DownloadInfo {
    /// The archive, and its digests by algorithm.
    pub archive_info: Option<ArchiveInfo>,
}

/// Digests of an archive.
#[derive(Debug, serde::Deserialize)]
pub struct ArchiveInfo {
    /// Algorithm → digest, hexadecimal.
    #[serde(default)]
    pub hashes: std::collections::BTreeMap<String, String>,
}

/// Installs wheels, and nothing that they need, into the environment at `env`; `locked` are packages of a lock, pip
/// among them.
///
/// # Errors
/// The world: pip fails. Otherwise as [`wheel_folder`].
pub fn add(
    build: &Build<'_>,
    env: &Path,
    scratch: &Path,
    locked: &[Locked],
    wheels: &[PathBuf],
    log: Option<&Path>,
) -> Result<()> {
    let (_, _, pip) = wheel_folder(build, scratch, locked)?;
    Process::new(python(env))
        .arg(pip.join("pip"))
        .args(["--isolated", "--disable-pip-version-check", "install", "--quiet", "--no-compile"])
        .args(["--no-index", "--no-deps", "--no-cache-dir"])
        .args(wheels)
        .env("LC_ALL", "C.UTF-8")
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", scratch)
        .check("pip", log)
        .doing(|| "installing what was built in an environment".into())?;
    Ok(())
}

/// Makes an environment at `env` with what is in the environment `base` (the recipe's verify packages) and a
/// torch, and returns what pip installed last.
///
/// # Errors
/// The world: pip fails.
pub fn with_torch(
    build: &Build<'_>,
    base: &Path,
    env: &Path,
    scratch: &Path,
    torch: &TorchFrom<'_>,
    log: Option<&Path>,
) -> Result<Installed> {
    let lock = build.python_lock()?;
    // All but torch is the same for every build: made once a store, and shared by links. What a
    // program writes there (bytecode) are files of this environment alone.
    crate::store::share_tree(base, env)?;
    let (_, _, pip) = wheel_folder(build, scratch, &lock.verify)?;
    let report = scratch.join("pip-report.json");
    let pip = Process::new(python(env))
        .arg(pip.join("pip"))
        .args(["--disable-pip-version-check", "install", "--quiet", "--no-compile", "--report"])
        .arg(&report)
        .env("LC_ALL", "C.UTF-8")
        .env("PATH", "/usr/bin:/bin");
    let (pip, what) = match torch {
        TorchFrom::Wheel(wheel) => {
            let pip = pip.args(["--isolated", "--no-index", "--no-cache-dir"]).arg(wheel).env("HOME", scratch);
            (pip, wheel.display().to_string())
        }
        TorchFrom::Index(requirement) => {
            let pip = own_index(pip.arg(requirement));
            (pip, (*requirement).to_owned())
        }
    };
    pip.check("pip", log).doing(|| format!("installing {what} in a fresh environment"))?;
    serde_json::from_slice(&fs_err::read(&report)?)
        .map_err(|e| Error::world("pip", format!("pip's report of what it installed cannot be read: {e}")))
}

/// Puts packages of pip's index (`name==version`), without what they need, into the folder `target`.
///
/// # Errors
/// The world: pip fails.
pub fn packages_from_index(build: &Build<'_>, target: &Path, scratch: &Path, requirements: &[String]) -> Result<()> {
    let (_, _, pip) = wheel_folder(build, scratch, &build.python_lock()?.build)?;
    let pip = Process::new(&build.python.executable)
        .arg(pip.join("pip"))
        .args(["--disable-pip-version-check", "install", "--quiet", "--no-compile", "--no-deps"])
        .args(["--only-binary", ":all:", "--target"])
        .arg(target)
        .args(requirements)
        .env("LC_ALL", "C.UTF-8")
        .env("PATH", "/usr/bin:/bin");
    own_index(pip).check("pip", None).doing(|| format!("fetching {}", requirements.join(", ")))?;
    Ok(())
}

/// pip as its user has set it up: index, certificates, proxies, cache, and the network.
fn own_index(pip: Process) -> Process {
    let own = std::env::vars_os().filter(|(name, _)| {
        let name = name.to_string_lossy();
        name.starts_with("PIP_")
            || ["HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"].contains(&&*name)
            || name.to_ascii_lowercase().ends_with("_proxy")
    });
    pip.envs(own).env("PIP_NO_INPUT", "1").with_network()
}

/// Folders of the environment's programs.
pub fn programs(env: &Path) -> Vec<PathBuf> {
    if cfg!(windows) {
        // What pip writes to Scripts for `cmake` names the interpreter by the path that it had then.
        vec![env.join("Lib/site-packages/cmake/data/bin"), env.join("Scripts")]
    } else {
        vec![env.join("bin")]
    }
}

/// The program `name` of the environment at `env`.
pub fn tool(env: &Path, name: &str) -> PathBuf {
    let file = format!("{name}{}", std::env::consts::EXE_SUFFIX);
    let folders = programs(env);
    let found = folders.iter().map(|dir| dir.join(&file)).find(|path| path.is_file());
    found.unwrap_or_else(|| folders.last().unwrap_or(&env.to_owned()).join(file))
}

/// The interpreter of the environment at `env`.
pub fn python(env: &Path) -> PathBuf {
    if cfg!(windows) { env.join("Scripts/python.exe") } else { env.join("bin/python") }
}

/// Folder of the environment's packages.
pub fn site_packages(env: &Path, minor: &str) -> PathBuf {
    if cfg!(windows) { env.join("Lib/site-packages") } else { env.join(format!("lib/python{minor}/site-packages")) }
}

/// A folder with the wheels under their names, the requirements file for it, and pip's own wheel.
///
/// # Errors
/// Bad input: one has no PyPI coordinate, or pip is not among them. The world: one is not in the store; the folder
/// cannot be written.
pub fn wheel_folder(build: &Build<'_>, scratch: &Path, wheels: &[Locked]) -> Result<(PathBuf, PathBuf, PathBuf)> {
    use std::fmt::Write;
    let folder = scratch.join("wheels");
    fs_err::create_dir_all(&folder)?;
    let mut requirements = String::new();
    let mut pip = None;
    for wheel in wheels {
        let Some(Coordinate::Pypi { name, version, file }) = &wheel.coordinate else {
            return Err(Error::misuse("lock", "a Python package of the lock has no pypi coordinate")
                .next("run `cargo xtask lock`"));
        };
        let blob = build.store.blob(&wheel.sha256, wheel.size)?.ok_or_else(|| {
            Error::world("not-fetched", format!("{file} is not in the store")).next("run `cargo xtask fetch`")
        })?;
        let named = folder.join(file);
        if !named.exists() && fs_err::hard_link(&blob.path, &named).is_err() {
            fs_err::copy(&blob.path, &named)?;
        }
        if name == "pip" {
            pip = Some(named.clone());
        }
        writeln!(requirements, "{name}=={version} --hash=sha256:{}", wheel.sha256).ok();
    }
    let path = scratch.join("requirements.txt");
    fs_err::write(&path, requirements)?;
    let pip = pip.ok_or_else(|| Error::misuse("recipe", "python.build must pin pip: it installs the others"))?;
    Ok((folder, path, pip))
}

/// Makes the environment work from wherever it is moved to: the wrapper scripts that pip writes
/// hold the path they were made at, so `cmake` becomes a link to the program itself.
fn relocate(env: &Path) -> Result<()> {
    let bin = env.join("bin");
    if !bin.is_dir() {
        return Ok(());
    }
    let data = walkdir::WalkDir::new(env.join("lib"))
        .max_depth(5)
        .into_iter()
        .flatten()
        .find(|e| e.path().ends_with("cmake/data/bin"))
        .map(walkdir::DirEntry::into_path);
    if let Some(data) = data {
        for tool in ["cmake", "ctest", "cpack"] {
            let link = bin.join(tool);
            if link.exists() {
                fs_err::remove_file(&link)?;
            }
            let relative = Path::new("..").join(data.strip_prefix(env).unwrap_or(&data)).join(tool);
            crate::platform::symlink(&relative, &link)?;
        }
    }
    Ok(())
}
