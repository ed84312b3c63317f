//! What a release carries in itself: recipes, patches, and the commit that it was built from.
//!
//! Only a release does (profile `release`, or `TORCHMILL_EMBED=1`): a development build finds its recipes in the
//! clone that it stands in, and is not compiled again because a recipe was edited.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=TORCHMILL_EMBED");
    println!("cargo::rerun-if-env-changed=TORCHMILL_COMMIT");
    let of = |name: &str| std::env::var_os(name);
    let embeds = of("PROFILE").is_some_and(|p| p == "release") || of("TORCHMILL_EMBED").is_some();
    let root = PathBuf::from(of("CARGO_MANIFEST_DIR").unwrap_or_default()).join("..");
    let mut files = Vec::new();
    if embeds {
        for folder in ["recipes", "patches"] {
            println!("cargo::rerun-if-changed={}", root.join(folder).display());
            list(&root, Path::new(folder), &mut files);
        }
        if let Some(commit) = commit(&root) {
            println!("cargo::rustc-env=TORCHMILL_COMMIT={commit}");
        }
    }
    files.sort();
    let mut text = String::from("&[\n");
    for name in files {
        let path = root.join(&name);
        let _ = writeln!(text, "    ({:?}, include_bytes!({:?})),", name, path.display().to_string());
    }
    text.push_str("]\n");
    let out = PathBuf::from(of("OUT_DIR").unwrap_or_default()).join("release.rs");
    if let Err(e) = std::fs::write(&out, text) {
        panic!("{}: {e}", out.display());
    }
}

/// All files below `folder`, named from `root` with slashes.
fn list(root: &Path, folder: &Path, into: &mut Vec<String>) {
    for entry in std::fs::read_dir(root.join(folder)).into_iter().flatten().flatten() {
        let name = folder.join(entry.file_name());
        if entry.path().is_dir() {
            list(root, &name, into);
        } else if let Some(name) = name.to_str() {
            into.push(name.replace('\\', "/"));
        }
    }
}

/// The commit: what the release says, else what the archive of its source says, else what git says.
fn commit(root: &Path) -> Option<String> {
    let stated = std::env::var("TORCHMILL_COMMIT").ok();
    let archived = || std::fs::read_to_string(root.join("COMMIT")).ok();
    let of_git = || {
        // A folder that lies in somebody else's repository has no commit of ours.
        root.join(".git").exists().then_some(())?;
        // HEAD itself names a branch, and stays as it is when that moves; its log does not.
        for file in [".git/HEAD", ".git/logs/HEAD"] {
            println!("cargo::rerun-if-changed={}", root.join(file).display());
        }
        let out = Command::new("git").arg("-C").arg(root).args(["rev-parse", "HEAD"]).output().ok()?;
        out.status.success().then(|| String::from_utf8_lossy(&out.stdout).into_owned())
    };
    let found = stated.or_else(archived).or_else(of_git)?;
    let found = found.trim();
    (found.len() == 40 && found.bytes().all(|b| b.is_ascii_hexdigit())).then(|| found.to_owned())
}
