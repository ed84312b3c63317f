//! Cargo, for programs that are linked against what was built.

use std::path::{Path, PathBuf};

use super::{Compiler, Process};
use crate::platform;

/// Cargo with the settings it needs (registry, certificates, proxies, toolchain), with this compiler and, where there
/// is one, this compiler cache; no network. A compiler of locked packages links too, and its `ar` archives. What it does
/// not see is hidden: a library that a build script finds on the machine (that of `bzip2-sys` asks pkg-config) could
/// not be linked. `None` where there is no cargo.
pub fn process(compiler: &Compiler, cache: Option<&Path>) -> Option<Process> {
    let cargo = std::env::var_os("CARGO").map(PathBuf::from).or_else(|| platform::which("cargo"))?;
    let cxx = compiler.cxx.display().to_string();
    let cxx = match cache {
        // The `cc` crate knows the caches as wrappers; it splits the variable at spaces.
        Some(program) if !program.to_string_lossy().contains(' ') => format!("{} {cxx}", program.display()),
        _ => cxx,
    };
    let mut process =
        Process::new(cargo).hide(compiler.hidden()).env("LC_ALL", "C.UTF-8").env("CC", &compiler.cc).env("CXX", cxx);
    if let (Some((name, linker)), Some(root)) = (linker(compiler), &compiler.locked) {
        process = process.env(name, linker).env("AR", root.join("bin/llvm-ar"));
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
    use std::ffi::OsStr;

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
            let told = |name: &str| {
                let named = command.get_envs().find(|(variable, _)| *variable == OsStr::new(name));
                named.and_then(|(_, value)| value)
            };
            assert_eq!(told(name), Some(locked.cc.as_os_str()));
            assert_eq!(told("AR"), Some(root.join("bin/llvm-ar").as_os_str()));
            // It sees of the machine what the build saw.
            let hidden = std::env::join_paths(locked.hidden()).unwrap();
            assert_eq!(command.get_args().nth(2), Some(hidden.as_os_str()));
            // The machine's own links as ever, and sees all of it.
            let own = Compiler { locked: None, ..locked };
            assert_eq!(linker(&own), None);
            let command = process(&own, None).expect("cargo runs this test").command().unwrap();
            assert!(command.get_envs().all(|(variable, _)| variable != OsStr::new("AR")));
            assert_eq!(command.get_args().nth(2), Some(OsStr::new("")));
        }
    }
}
