//! Folders of installed packages: where they are below what a person names, and what is installed in them.

use std::path::{Path, PathBuf};

use torchmill_bytes::names;

use crate::error::{Error, Result};
use crate::wheel::record;
use crate::{inspect, platform};

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

/// A package that is installed in a folder of packages: by pip (`*.dist-info`), by the system's packager or an old
/// setuptools (`*.egg-info`, a folder or a file), as an egg (`*.egg`), or from where it is edited (`*.egg-link`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Distribution {
    /// Its entry in the folder of packages.
    pub entry: PathBuf,
    /// Its METADATA, or PKG-INFO.
    pub metadata: PathBuf,
    /// What its files are relative to: the folder of packages, the egg, the folder that it is edited in.
    pub root: PathBuf,
}

impl Distribution {
    /// What `entry` of a folder of packages says is installed; `None` where it says nothing.
    fn of(entry: PathBuf) -> Option<Self> {
        let site = entry.parent()?.to_owned();
        let (metadata, root) = match entry.extension()?.to_str()? {
            "dist-info" => (entry.join("METADATA"), site),
            "egg-info" if entry.is_dir() => (entry.join("PKG-INFO"), site),
            "egg-info" => (entry.clone(), site),
            "egg" => (entry.join("EGG-INFO/PKG-INFO"), entry.clone()),
            "egg-link" => {
                let text = platform::read_text(&entry, LINK).ok()?;
                let mut lines = text.lines().map(str::trim).filter(|l| !l.is_empty());
                let folder = PathBuf::from(lines.next()?);
                let name = entry.file_stem()?.to_str()?.replace('-', "_");
                (folder.join(format!("{name}.egg-info/PKG-INFO")), folder)
            }
            _ => return None,
        };
        metadata.is_file().then_some(Self { entry, metadata, root })
    }

    /// The name of the entry: `torch-2.6.0.dist-info`.
    pub fn entry_name(&self) -> String {
        self.entry.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// Name and version in the entry's name, as they stand there.
    pub fn stem(&self) -> (String, String) {
        let stem = self.entry.file_stem().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let mut parts = stem.split('-');
        let mut next = || parts.next().unwrap_or_default().to_owned();
        (next(), next())
    }

    /// The file `name` beside METADATA, read as UTF-8; empty where there is none.
    pub fn text(&self, name: &str) -> String {
        let folder = self.metadata.parent().filter(|_| self.metadata != self.entry);
        folder.and_then(|d| platform::read_text(&d.join(name), MOST).ok()).unwrap_or_default()
    }

    /// The folder that it is edited in, where pip installed it so (PEP 610: `direct_url.json`).
    fn edited(&self) -> Option<PathBuf> {
        let said: serde_json::Value = serde_json::from_str(&self.text("direct_url.json")).ok()?;
        let editable = said["dir_info"]["editable"].as_bool()?;
        let url = url::Url::parse(said["url"].as_str()?).ok()?;
        editable.then(|| url.to_file_path().ok())?
    }

    /// The files of the package, and what their paths are relative to. What lies outside (scripts) is left out.
    ///
    /// # Errors
    /// Bad input: it is edited in a folder that is not there.
    pub fn files(&self) -> Result<(PathBuf, Vec<String>)> {
        if let Some(folder) = self.edited().or_else(|| (self.root != self.entry.parent()?).then(|| self.root.clone())) {
            if !folder.is_dir() {
                return Err(Error::misuse(
                    "editable",
                    format!("it is installed from {}, which is not there", folder.display()),
                ));
            }
            let files = below(&folder, "");
            // What a build left behind, and an environment that lies in it, are no part of it.
            let own = |f: &String| {
                let other = |part: &str| part.starts_with('.') || part.ends_with("-packages");
                !f.starts_with("build/") && !f.split('/').any(other)
            };
            return Ok((folder, files.into_iter().filter(own).collect()));
        }
        let inside = |path: &str| !path.starts_with('/') && path.split('/').all(|part| part != "..");
        if let Ok(entries) = record::parse(&self.text("RECORD"))
            && !entries.is_empty()
        {
            return Ok((self.root.clone(), entries.into_iter().map(|e| e.path).filter(|p| inside(p)).collect()));
        }
        // What setuptools wrote down, relative to the folder of its own.
        let listed = self.text("installed-files.txt");
        let mut files: Vec<String> = listed
            .lines()
            .filter_map(|l| l.trim().strip_prefix("../"))
            .filter(|p| inside(p))
            .map(str::to_owned)
            .collect();
        if files.is_empty() {
            // Else all below the folders that carry its name, and the modules beside them.
            let top = self.text("top_level.txt");
            let (name, _) = self.stem();
            let mut names: Vec<&str> = top.lines().map(str::trim).filter(|l| !l.is_empty() && inside(l)).collect();
            names.push(&name);
            names.sort_unstable();
            names.dedup();
            for name in names {
                files.extend([name.to_owned(), format!("{name}.libs")].iter().flat_map(|f| below(&self.root, f)));
                files.extend(modules(&self.root, name));
            }
        }
        Ok((self.root.clone(), files))
    }
}

/// Bytes of a file about a package, and of an `.egg-link`, at most.
const MOST: u64 = 64 << 20;
const LINK: u64 = 64 << 10;

/// Extension modules called `name` that lie in `site` itself: `_C.cpython-311-x86_64-linux-gnu.so`.
fn modules(site: &Path, name: &str) -> Vec<String> {
    let entries = std::fs::read_dir(site).into_iter().flatten().flatten();
    let names = entries.filter_map(|e| e.file_name().into_string().ok());
    names.filter(|f| f.split('.').next() == Some(name) && inspect::is_library(f)).collect()
}

/// What is installed in `site`.
pub fn distributions(site: &Path) -> Vec<Distribution> {
    let entries = std::fs::read_dir(site).into_iter().flatten().flatten().map(|e| e.path());
    let mut found: Vec<Distribution> = entries.filter_map(Distribution::of).collect();
    found.sort_by(|a, b| a.entry.cmp(&b.entry));
    found
}

/// What is installed of `project` (normalized, where a name in a file system has `_` for `-`).
///
/// # Errors
/// Bad input: there are several, so that nobody can say which version is installed.
pub fn distribution(site: &Path, project: &str) -> Result<Option<Distribution>> {
    let is = |d: &Distribution| crate::wheel::normalize(&d.stem().0) == project;
    let found: Vec<Distribution> = distributions(site).into_iter().filter(is).collect();
    match &found[..] {
        [one, another, ..] => Err(Error::misuse(
            if project == "torch" { "two-torches" } else { "two-versions" },
            format!(
                "two versions of {project} are in {}: {} and {}",
                site.display(),
                one.entry_name(),
                another.entry_name()
            ),
        )
        .next("an installation was broken off or made twice: uninstall until pip finds none, and install one")),
        _ => Ok(found.into_iter().next()),
    }
}

/// All files below `site`/`folder`, relative to `site`.
pub fn below(site: &Path, folder: &str) -> Vec<String> {
    let entries = walkdir::WalkDir::new(site.join(folder)).follow_links(true).sort_by_file_name();
    entries.into_iter().flatten().filter(|e| e.file_type().is_file()).map(|e| names::below(site, e.path())).collect()
}
