//! Folders of installed packages: where they are below what a person names, and what is installed in them.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::wheel::record;

/// The folders of packages that `root` is, or holds as an environment.
fn sites(root: &Path) -> Vec<PathBuf> {
    let is_site = |d: &Path| d.join("torch").is_dir() || !distributions(d).is_empty();
    if is_site(root) {
        return vec![root.to_owned()];
    }
    let mut found = vec![root.join("Lib/site-packages")];
    for lib in ["lib", "lib64"] {
        let versions = std::fs::read_dir(root.join(lib)).into_iter().flatten().flatten();
        found.extend(versions.flat_map(|e| ["site-packages", "dist-packages"].map(|d| e.path().join(d))));
    }
    found.retain(|d| is_site(d));
    found.sort();
    // `lib64` is often a link to `lib`.
    found.dedup_by_key(|d| fs_err::canonicalize(&*d).unwrap_or_else(|_| d.clone()));
    let mut seen = std::collections::HashSet::new();
    found.retain(|d| seen.insert(fs_err::canonicalize(d).unwrap_or_else(|_| d.clone())));
    found
}

/// The folder of packages that `root` means: itself, or the one of an environment. `None` where it is neither.
///
/// # Errors
/// Bad input: it holds several.
pub fn site(root: &Path) -> Result<Option<PathBuf>> {
    let mut found = sites(root);
    // Of several Pythons in one folder, the one with a torch is meant.
    let with_torch: Vec<PathBuf> = found.iter().filter(|d| d.join("torch").is_dir()).cloned().collect();
    if let [one, another, ..] = &with_torch[..] {
        return Err(Error::misuse(
            "two-torches",
            format!("{} holds two torches: in {} and in {}", root.display(), one.display(), another.display()),
        )
        .next("name one of the two folders"));
    }
    if with_torch.len() == 1 {
        found = with_torch;
    }
    match &found[..] {
        [one] => Ok(Some(one.clone())),
        [] => Ok(None),
        [one, another, ..] => Err(Error::misuse(
            "two-folders",
            format!("{} holds packages for two Pythons: {} and {}", root.display(), one.display(), another.display()),
        )
        .next("name one of the two folders")),
    }
}

/// The `*.dist-info` folders of `site`.
pub fn distributions(site: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(site).into_iter().flatten().flatten().map(|e| e.path());
    let mut found: Vec<PathBuf> =
        entries.filter(|p| p.extension().is_some_and(|x| x == "dist-info") && p.join("METADATA").is_file()).collect();
    found.sort();
    found
}

/// The `*.dist-info` of `project` (normalized, where a name in a file system has `_` for `-`), newest last.
///
/// # Errors
/// Bad input: there are several, so that nobody can say which version is installed.
pub fn distribution(site: &Path, project: &str) -> Result<Option<PathBuf>> {
    let is = |p: &PathBuf| {
        let name = p.file_name().and_then(|n| n.to_str()).and_then(|n| n.split_once('-')).map(|(n, _)| n);
        name.is_some_and(|n| crate::wheel::normalize(n) == project)
    };
    let found: Vec<PathBuf> = distributions(site).into_iter().filter(is).collect();
    match &found[..] {
        [one, another, ..] => {
            let name = |p: &Path| p.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            Err(Error::misuse(
                if project == "torch" { "two-torches" } else { "two-versions" },
                format!("two versions of {project} are in {}: {} and {}", site.display(), name(one), name(another)),
            )
            .next("an installation was broken off or made twice: uninstall until pip finds none, and install one"))
        }
        _ => Ok(found.into_iter().next()),
    }
}

/// The files of an installed package, relative to `site`: what its RECORD lists, else all below the folders that
/// carry its name. What lies outside of `site` (scripts) is left out.
pub fn files(site: &Path, dist_info: &Path) -> Vec<String> {
    let entries = std::fs::read_to_string(dist_info.join("RECORD")).ok().and_then(|text| record::parse(&text).ok());
    if let Some(entries) = entries {
        let inside = |path: &str| !path.starts_with('/') && path.split('/').all(|part| part != "..");
        return entries.into_iter().map(|e| e.path).filter(|p| inside(p)).collect();
    }
    let stem = dist_info.file_name().and_then(|n| n.to_str()).and_then(|n| n.split_once('-')).map_or("", |(n, _)| n);
    [stem.to_owned(), format!("{stem}.libs")].iter().flat_map(|folder| below(site, folder)).collect()
}

/// All files below `site`/`folder`, relative to `site`.
pub fn below(site: &Path, folder: &str) -> Vec<String> {
    let relative = |path: &Path| {
        let path = path.strip_prefix(site).ok()?;
        Some(path.components().map(|c| c.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/"))
    };
    let entries = walkdir::WalkDir::new(site.join(folder)).follow_links(true).sort_by_file_name();
    entries.into_iter().flatten().filter(|e| e.file_type().is_file()).filter_map(|e| relative(e.path())).collect()
}
