//! What a file is before it is published: a wheel whose name, METADATA and RECORD agree.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use pep440_rs::{Version, VersionSpecifiers};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::artifact::audit::Artifact;
use crate::error::{Error, Result};
use crate::inspect::{self, Cursor, Depth, FileAt};
use crate::source::pypi;
use crate::store::digest_file;

/// Largest METADATA that is read, bytes.
const MOST_METADATA: u64 = 4 << 20;

/// A wheel file name, PEP 427: `{distribution}-{version}(-{build})?-{python}-{abi}-{platform}.whl`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// Normalized project name (PEP 503).
    pub project: String,
    /// The version as written.
    pub version: String,
    /// Build tag, as written.
    pub build: Option<String>,
    /// Python tags, joined by dots.
    pub python: String,
    /// ABI tags.
    pub abi: String,
    /// Platform tags.
    pub platform: String,
}

impl FromStr for Name {
    type Err = String;

    fn from_str(name: &str) -> std::result::Result<Self, String> {
        let stem = name.strip_suffix(".whl").ok_or_else(|| format!("'{name}' does not end with .whl"))?;
        let fits = |c: char| c.is_ascii_alphanumeric() || "._-+!".contains(c);
        if let Some(bad) = name.chars().find(|c| !fits(*c)) {
            return Err(format!("'{name}' holds {bad:?}, which no wheel's name does (PEP 427)"));
        }
        let parts: Vec<&str> = stem.split('-').collect();
        let (distribution, version, build, tags) = match parts[..] {
            [d, v, p, a, l] => (d, v, None, [p, a, l]),
            [d, v, build, p, a, l] if build.starts_with(|c: char| c.is_ascii_digit()) => {
                (d, v, Some(build.to_owned()), [p, a, l])
            }
            _ => return Err(format!("'{name}' is not NAME-VERSION-PYTHON-ABI-PLATFORM.whl (PEP 427)")),
        };
        if distribution.is_empty()
            || !distribution.starts_with(|c: char| c.is_ascii_alphanumeric())
            || tags.contains(&"")
        {
            return Err(format!("'{name}' has an empty part (PEP 427)"));
        }
        Version::from_str(version).map_err(|e| format!("'{name}': '{version}' is no version (PEP 440): {e}"))?;
        let [python, abi, platform] = tags.map(str::to_owned);
        Ok(Self { project: pypi::normalize(distribution), version: version.to_owned(), build, python, abi, platform })
    }
}

/// What the start page says of a wheel; clients ignore it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// Whether the store has libuv, as `inspect` proves it; `None` for what is no torch.
    pub libuv: Option<bool>,
    /// CUDA version.
    pub cuda: Option<String>,
    /// One line from METADATA.
    pub summary: Option<String>,
}

/// A wheel that may be published.
#[derive(Debug, Clone)]
pub struct Wheel {
    /// Where it is.
    pub path: PathBuf,
    /// Its file name.
    pub filename: String,
    /// The same, taken apart.
    pub name: Name,
    /// SHA-256 of the file.
    pub sha256: String,
    /// Bytes.
    pub size: u64,
    /// `Requires-Python` of METADATA.
    pub requires_python: Option<String>,
    /// METADATA itself: what PEP 658 serves beside the wheel.
    pub metadata: Vec<u8>,
    /// For people.
    pub about: About,
    /// Files beside it that tell of its making: statement, bill of materials, manifest, validation report.
    pub beside: Vec<PathBuf>,
}

/// Endings of the files that `build-torch`, `sign` and `validate` put beside a wheel.
const BESIDE: &[&str] = &[".manifest.json", ".cdx.json", ".provenance.dsse.json", ".provenance.json", REPORT];
/// Ending of the report of `validate` about a wheel.
pub const REPORT: &str = ".validate.html";

impl Wheel {
    /// Examines the file at `path`.
    ///
    /// # Errors
    /// Bad input: no wheel, damaged, name and METADATA disagree, RECORD does not tell the truth.
    pub fn examine(path: &Path) -> Result<Self> {
        let shown = path.display();
        let bad = |what: String| Error::misuse("no-wheel", format!("{shown}: {what}"));
        let filename = path.file_name().and_then(|n| n.to_str()).ok_or_else(|| bad("not the path of a file".into()))?;
        let name: Name = filename.parse().map_err(bad)?;
        // A pipe or a device has no end that one could wait for.
        let kind = fs_err::metadata(path).ok();
        if kind.is_some_and(|m| !m.is_file()) {
            return Err(bad("it is no regular file".into()).next("name the wheel itself"));
        }
        let artifact = Artifact::open(path)?;
        artifact.record()?.map_err(|why| {
            bad(format!("its RECORD does not hold: {why}"))
                .next("build or download the wheel again; do not publish this one")
        })?;
        let metadata = metadata(path)?;
        let text = String::from_utf8_lossy(&metadata);
        let header = |key: &str| {
            text.lines().take_while(|l| !l.is_empty()).find_map(|l| {
                l.split_once(':').filter(|(k, _)| k.eq_ignore_ascii_case(key)).map(|(_, v)| v.trim().to_owned())
            })
        };
        let disagree = |what: &str, own: Option<String>, said: &str| {
            let own = own.unwrap_or_else(|| "nothing".into());
            bad(format!("its METADATA says {what} {own}, its file name {said}"))
                .next("a wheel is renamed by building it again, not by moving the file")
        };
        let own = header("Name");
        if own.as_deref().map(pypi::normalize).as_deref() != Some(&name.project) {
            return Err(disagree("Name", own, &name.project));
        }
        let own = header("Version");
        let same = |a: &str, b: &str| matches!((Version::from_str(a), Version::from_str(b)), (Ok(a), Ok(b)) if a == b);
        if !own.as_deref().is_some_and(|v| same(v, &name.version)) {
            return Err(disagree("Version", own, &name.version));
        }
        let requires_python = header("Requires-Python");
        if let Some(r) = &requires_python
            && VersionSpecifiers::from_str(r).is_err()
        {
            return Err(bad(format!(
                "its METADATA says Requires-Python '{r}', which is no version specifier (PEP 440)"
            )));
        }
        let mut about = About { summary: header("Summary"), ..About::default() };
        if name.project == "torch" {
            let report =
                inspect::inspect(filename, &FileAt::new(fs_err::File::open(path)?.into_file())?, Depth::Verdict)?;
            about.libuv = Some(report.libuv);
            about.cuda = report.torch.cuda;
        }
        let (sha256, size) = digest_file(path)?;
        let stem = filename.trim_end_matches(".whl");
        let dir = path.parent().unwrap_or(Path::new("."));
        let beside = beside(dir, stem)?;
        Ok(Self {
            path: path.to_owned(),
            filename: filename.to_owned(),
            name,
            sha256,
            size,
            requires_python,
            metadata,
            about,
            beside,
        })
    }
}

/// What tells of the making of the wheel `stem` in `dir`.
///
/// # Errors
/// Bad input: one of them is a link, a pipe, a folder: what is published must be a file of the folder itself.
fn beside(dir: &Path, stem: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for path in BESIDE.iter().map(|ending| dir.join(format!("{stem}{ending}"))) {
        match path.symlink_metadata() {
            Ok(meta) if meta.is_file() => found.push(path),
            Ok(meta) => {
                let what = if meta.is_symlink() { "a symbolic link" } else { "no regular file" };
                return Err(Error::misuse(
                    "beside",
                    format!("{} would be published with the wheel beside it, and is {what}", path.display()),
                )
                .next("put the file itself there, or remove it"));
            }
            Err(_) => {}
        }
    }
    Ok(found)
}

/// METADATA of the wheel at `path`.
fn metadata(path: &Path) -> Result<Vec<u8>> {
    let bad = |what: String| Error::misuse("no-wheel", format!("{}: {what}", path.display()));
    let file = FileAt::new(fs_err::File::open(path)?.into_file())?;
    let mut archive = zip::ZipArchive::new(Cursor::new(&file)).map_err(|e| bad(e.to_string()))?;
    let is =
        |n: &String| n.split_once('/').is_some_and(|(top, file)| top.ends_with(".dist-info") && file == "METADATA");
    let names: Vec<String> = archive.file_names().flatten().map(|n| n.into_owned()).filter(is).collect();
    let [name] = &names[..] else {
        return Err(bad(format!("it holds {} files *.dist-info/METADATA, not one", names.len())));
    };
    let entry = archive.by_name(name).map_err(|e| bad(e.to_string()))?;
    let mut bytes = Vec::new();
    entry.take(MOST_METADATA + 1).read_to_end(&mut bytes).map_err(|e| bad(format!("METADATA cannot be read: {e}")))?;
    if bytes.len() as u64 > MOST_METADATA {
        return Err(bad(format!("its METADATA has more than {MOST_METADATA} bytes")));
    }
    Ok(bytes)
}

/// SHA-256 of bytes, in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart_as_pep_427_says() {
        let n: Name = "torch-2.6.0+cpu.libuv-cp311-cp311-manylinux_2_35_x86_64.whl".parse().unwrap();
        assert_eq!((n.project.as_str(), n.version.as_str()), ("torch", "2.6.0+cpu.libuv"));
        assert_eq!((n.python.as_str(), n.platform.as_str()), ("cp311", "manylinux_2_35_x86_64"));
        let n: Name = "My_Project.x-1.0-1build-py3-none-any.whl".parse().unwrap();
        assert_eq!(n.project, "my-project-x");
    }

    #[test]
    fn what_is_no_wheels_name_is_refused() {
        for bad in [
            "torch.whl",
            "torch-2.6.0.tar.gz",
            "../torch-2.6.0-py3-none-any.whl",
            "torch-not.a.version-py3-none-any.whl",
            "torch-1.0-x-py3-none-any.whl",
            "-1.0-py3-none-any.whl",
            "torch-1.0-py3--any.whl",
            "to\nrch-1.0-py3-none-any.whl",
            "törch-1.0-py3-none-any.whl",
        ] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_name_makes_it_panic_or_leave_its_folder(name in "\\PC{0,60}") {
            if let Ok(parsed) = name.parse::<Name>() {
                proptest::prop_assert!(!name.contains('/') && !name.contains('\\'));
                proptest::prop_assert!(parsed.project.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'));
            }
        }
    }
}
