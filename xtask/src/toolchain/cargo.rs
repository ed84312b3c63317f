//! Cargo, for programs that are linked against what was built.

use std::path::{Path, PathBuf};

use super::{Compiler, Process};
use crate::platform;

/// Cargo with the settings it needs (registry, certificates, proxies, toolchain), with this compiler, as linker too where
/// it is one of locked packages, and, where there is one, this compiler cache; no network. `None` where there is no cargo.
pub fn process(compiler: &Compiler, cache: Option<&Path>) -> Option<Process> {
    let cargo = std::env::var_os("CARGO").map(PathBuf::from).or_else(|| platform::which("cargo"))?;
    let cxx = compiler.cxx.display().to_string();
    let cxx = match cache {
        // The `cc` crate knows the caches as wrappers; it splits the variable at spaces.
        Some(program) if !program.to_string_lossy().contains(' ') => format!("{} {cxx}", program.display()),
        _ => cxx,
    };
    let mut process = Process::new(cargo).env("LC_ALL", "C.UTF-8").env("CC", &compiler.cc).env("CXX", cxx);
    if let Some((name, linker)) = linker(compiler) {
        process = process.env(name, linker);
    }
    for name in [
        "PATH",
        "HOME",
        "CARGO_HOME",
        "RUSTUP_HOME",
        "RUSTUP_TOOLCHAIN",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "https_proxy",
        "http_proxy",
        "CARGO_HTTP_CAINFO",
    ] {
        if let Some(value) = std::env::var_os(name) {
            process = process.env(name, value);
        }
    }
    Some(process)
}

/// The variable that tells cargo with what to link, and its value, for a compiler of locked packages: rustc would look for
/// a `cc` on PATH, which the machine need not have.
fn linker(compiler: &Compiler) -> Option<(String, &Path)> {
    compiler.locked.as_ref()?;
    // Packages are locked for Linux with GNU's C library alone; Rust's target has a vendor in its name.
    let machine = compiler.target.split('-').next()?.to_ascii_uppercase();
    Some((format!("CARGO_TARGET_{machine}_UNKNOWN_LINUX_GNU_LINKER"), compiler.cc.as_path()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::toolchain::locked;

    #[test]
    fn what_locked_packages_compile_is_linked_by_them_too() {
        let root = Path::new("/store/toolchain");
        for (machine, name) in [
            ("x86_64", "CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER"),
            ("aarch64", "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER"),
        ] {
            let locked = locked::compiler(root, machine, "19.1.7", BTreeMap::new()).unwrap();
            assert_eq!(linker(&locked), Some((name.to_owned(), locked.cc.as_path())));
            let command = process(&locked, None).expect("cargo runs this test").command().unwrap();
            let told = command.get_envs().find(|(variable, _)| *variable == std::ffi::OsStr::new(name));
            assert_eq!(told.and_then(|(_, value)| value), Some(locked.cc.as_os_str()));
            // The machine's own links as ever.
            assert_eq!(linker(&Compiler { locked: None, ..locked }), None);
        }
    }
}
