//! Cargo, for programs that are linked against what was built.

use std::path::{Path, PathBuf};

use super::{Compiler, Process};
use crate::platform;

/// Cargo with the settings it needs (registry, certificates, proxies, toolchain), with this compiler
/// and, where there is one, this compiler cache; no network. `None` where there is no cargo.
pub fn process(compiler: &Compiler, cache: Option<&Path>) -> Option<Process> {
    let cargo = std::env::var_os("CARGO").map(PathBuf::from).or_else(|| platform::which("cargo"))?;
    let cxx = compiler.cxx.display().to_string();
    let cxx = match cache {
        // The `cc` crate knows the caches as wrappers; it splits the variable at spaces.
        Some(program) if !program.to_string_lossy().contains(' ') => format!("{} {cxx}", program.display()),
        _ => cxx,
    };
    let mut process = Process::new(cargo).env("LC_ALL", "C.UTF-8").env("CC", &compiler.cc).env("CXX", cxx);
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
