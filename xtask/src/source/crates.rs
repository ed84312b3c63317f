//! `crate:` coordinates: cargo itself downloads, so its registry settings and mirrors apply.

use std::path::PathBuf;

use crate::error::{Context, Error, Result};
use crate::platform::{self, scratch::Scratch};

/// Has cargo download `name` `version` and returns the path of the `.crate` file in cargo's cache.
///
/// # Errors
/// The world: cargo could not fetch it.
pub fn download(name: &str, version: &str) -> Result<PathBuf> {
    let file = format!("{name}-{version}.crate");
    if let Some(path) = cached(&file) {
        return Ok(path);
    }
    let dir = Scratch::new().doing(|| "making a scratch folder".into())?;
    fs_err::create_dir(dir.path().join("src"))?;
    fs_err::write(dir.path().join("src/lib.rs"), "")?;
    fs_err::write(
        dir.path().join("Cargo.toml"),
        format!(
            "[package]\nname = \"fetch\"\nversion = \"0.0.0\"\nedition = \"2021\"\n[workspace]\n[dependencies]\n\
             {name} = {{ version = \"={version}\", default-features = false }}\n"
        ),
    )?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let out = std::process::Command::new(cargo)
        .arg("fetch")
        .current_dir(dir.path())
        .output()
        .doing(|| "running cargo fetch".into())?;
    cached(&file).ok_or_else(|| {
        let said = String::from_utf8_lossy(&out.stderr);
        Error::world(
            "crate",
            format!("cargo could not fetch {name} {version}: {}", said.lines().last().unwrap_or("no message")),
        )
        .next("check cargo's registry settings (config.toml, source replacement)")
    })
}

fn cached(file: &str) -> Option<PathBuf> {
    let home =
        std::env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| platform::home_dir().map(|h| h.join(".cargo")))?;
    std::fs::read_dir(home.join("registry/cache")).ok()?.flatten().map(|e| e.path().join(file)).find(|p| p.is_file())
}
