//! What the licences of the linked crates ask for: their texts go with the program, in one file, each text once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{Error, Result};

/// The file of crates' texts, at the top of a checkout and in wheels.
pub const OF_CRATES: &str = "LICENSES-OF-CRATES.txt";
/// The texts of Rust's standard library, as its toolchain has them.
pub const OF_RUST: &str = "LICENSES-OF-RUST.html";

/// Folders below a crate that nothing is linked from: libgit2's way to Windows' HTTP is one, as TLS is rustls'.
const NOT_LINKED: &[&str] = &["tests", "test", "fuzz", "benches", "examples", "target", "contrib", "winhttp"];

/// What `cargo metadata` says, as much of it as is asked for here.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    repository: Option<String>,
    source: Option<String>,
    manifest_path: PathBuf,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<Kind>,
}

#[derive(Deserialize)]
struct Kind {
    kind: Option<String>,
}

/// Writes both files to the top of the checkout `source`: of the crates that the program links, by what `cargo metadata`
/// said of it, and of Rust's standard library, in the sysroot `toolchain`.
///
/// # Errors
/// The world: the toolchain has no licences; a crate has no text, and none can stand for it.
pub fn write(source: &Path, metadata: &str, toolchain: &Path) -> Result<()> {
    let metadata: Metadata =
        serde_json::from_str(metadata).map_err(|e| Error::world("cargo", format!("cargo metadata: {e}")))?;
    let own = fs_err::read_to_string(source.join("LICENSE-APACHE"))?;
    fs_err::write(source.join(OF_CRATES), text(&metadata, &own)?)?;
    let library = toolchain.join("share/doc/rust/COPYRIGHT-library.html");
    if !library.is_file() {
        let what = format!("{} is not there: the licences of Rust's library go with the program", library.display());
        return Err(Error::world("license", what).next("make the release with a toolchain that rustup installed"));
    }
    fs_err::copy(library, source.join(OF_RUST))?;
    Ok(())
}

/// The text of [`OF_CRATES`]; `apache` stands for crates that leave the choice and carry no text of their own.
fn text(metadata: &Metadata, apache: &str) -> Result<String> {
    let mut list =
        String::from("The program is made of these crates beside its own. Their licences' texts follow.\n\n");
    let mut texts: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in linked(metadata) {
        let name = format!("{} {}", package.name, package.version);
        let license = package.license.as_deref().unwrap_or("see its text");
        list += &format!("{name}: {license} ({})\n", package.repository.as_deref().unwrap_or("no repository"));
        let folder = package.manifest_path.parent().unwrap_or(Path::new("."));
        let found = files(folder)?;
        if found.is_empty() && !license.split([' ', '/']).any(|part| part == "Apache-2.0") {
            let what = format!("{name} ({license}) has no text of its licence in {}", folder.display());
            return Err(Error::world("license", what).next("leave the crate out, or say here what stands for its text"));
        }
        if found.is_empty() {
            texts.entry(apache.trim().to_owned()).or_default().insert(name.clone());
        }
        for file in found {
            let bytes = fs_err::read(&file)?;
            let text = String::from_utf8_lossy(&bytes).replace("\r\n", "\n").trim().to_owned();
            texts.entry(text).or_default().insert(name.clone());
        }
    }
    // In the order of who has them first.
    let mut texts: Vec<(BTreeSet<String>, String)> = texts.into_iter().map(|(text, names)| (names, text)).collect();
    texts.sort();
    let rule = "-".repeat(79);
    for (names, text) in texts {
        let names: Vec<String> = names.into_iter().collect();
        list += &format!("\n{rule}\n{}\n{rule}\n\n{text}\n", names.join(", "));
    }
    Ok(list)
}

/// What the program links, by name: not what builds it or tests it.
fn linked(metadata: &Metadata) -> Vec<&Package> {
    let nodes: BTreeMap<&str, &Node> = metadata.resolve.nodes.iter().map(|n| (n.id.as_str(), n)).collect();
    let ours = metadata.packages.iter().find(|p| p.name == env!("CARGO_PKG_NAME") && p.source.is_none());
    let (mut seen, mut next) = (BTreeSet::new(), Vec::from_iter(ours.map(|p| p.id.as_str())));
    while let Some(id) = next.pop() {
        if seen.insert(id) {
            let links = |d: &&Dependency| d.dep_kinds.iter().any(|k| k.kind.is_none());
            next.extend(nodes.get(id).into_iter().flat_map(|n| &n.deps).filter(links).map(|d| d.pkg.as_str()));
        }
    }
    let mut out: Vec<&Package> =
        metadata.packages.iter().filter(|p| p.source.is_some() && seen.contains(p.id.as_str())).collect();
    out.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
    out
}

/// Licence texts in a crate's folder, those of the C that it brings too.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let walk = walkdir::WalkDir::new(folder).sort_by_file_name().into_iter();
    let mut out = Vec::new();
    for entry in walk.filter_entry(|e| e.depth() == 0 || !NOT_LINKED.iter().any(|n| e.file_name() == *n)) {
        let entry = entry.map_err(|e| Error::world("io", e.to_string()))?;
        if entry.file_type().is_file() && is_license(&entry.file_name().to_string_lossy()) {
            out.push(entry.into_path());
        }
    }
    Ok(out)
}

/// Whether a file of this name is a licence's text, and no code that is about licences.
fn is_license(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let begins = ["license", "licence", "unlicense", "copying", "notice", "copyright"];
    let code = ["rs", "sh", "py", "c", "h", "pl", "in", "toml", "json"];
    begins.iter().any(|b| name.starts_with(b)) && !code.iter().any(|e| name.ends_with(&format!(".{e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_told_from_code() {
        for name in ["LICENSE", "LICENSE-MIT", "license.md", "COPYING.0BSD", "UNLICENSE", "LICENCE.md", "NOTICE.txt"] {
            assert!(is_license(name), "{name}");
        }
        for name in ["license-check.sh", "licenses.rs", "README.md", "notice.h"] {
            assert!(!is_license(name), "{name}");
        }
    }

    #[test]
    fn what_only_builds_or_tests_is_not_linked_and_one_text_is_told_once() {
        let dir = tempfile::tempdir().unwrap();
        let package = |name: &str, license: &str, source: Option<&str>| {
            let folder = dir.path().join(name);
            std::fs::create_dir(&folder).unwrap();
            serde_json::json!({"id": name, "name": name, "version": "1.0.0", "license": license, "repository": null,
                "source": source, "manifest_path": folder.join("Cargo.toml")})
        };
        let links = |name: &str, kind: Option<&str>| serde_json::json!({"pkg": name, "dep_kinds": [{"kind": kind}]});
        let node = |name: &str, deps: Vec<serde_json::Value>| serde_json::json!({"id": name, "deps": deps});
        let registry = Some("registry");
        let mut metadata: Metadata = serde_json::from_value(serde_json::json!({
            "packages": [package("torchmill", "MIT", None), package("a", "MIT", registry), package("b", "MIT", registry),
                package("c", "MIT OR Apache-2.0", registry), package("tool", "MIT", registry)],
            "resolve": {"nodes": [
                node("torchmill", vec![links("a", None), links("tool", Some("build"))]),
                node("a", vec![links("b", None), links("c", None)]),
                node("b", vec![]), node("c", vec![]), node("tool", vec![])]},
        }))
        .unwrap();
        std::fs::write(dir.path().join("a/LICENSE"), "the text\r\n").unwrap();
        std::fs::write(dir.path().join("b/COPYING"), "the text\n").unwrap();
        let said = text(&metadata, "apache's text").unwrap();
        assert_eq!(said.matches("the text").count(), 1, "{said}");
        assert!(said.contains("\na 1.0.0, b 1.0.0\n") && said.contains("c 1.0.0: MIT OR Apache-2.0"), "{said}");
        assert!(said.contains("\nc 1.0.0\n") && said.contains("apache's text") && !said.contains("tool"), "{said}");
        // What leaves no choice and has no text is no release.
        metadata.packages.retain(|p| p.name != "c");
        std::fs::remove_file(dir.path().join("b/COPYING")).unwrap();
        assert!(text(&metadata, "").unwrap_err().what().contains("b 1.0.0 (MIT) has no text"), "told");
    }
}
