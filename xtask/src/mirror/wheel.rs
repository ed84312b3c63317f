//! What a file is before it is published: a wheel whose name, METADATA and RECORD agree.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use pep440_rs::VersionSpecifiers;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::artifact::audit;
use crate::error::{Error, Exit, Result};
use crate::inspect::{self, Depth, FileAt};
use crate::store::digest_file;
use crate::wheel;

pub use crate::wheel::Name;

/// What the start page says of a wheel; clients ignore it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// Whether the store has libuv, as `inspect` proves it; `None` for what is no torch.
    pub libuv: Option<bool>,
    /// Version of CUDA that the torch was built for: `12.4`; `None` for one without, and for what is no torch.
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
    /// Size of the file in bytes.
    pub size: u64,
    /// `Requires-Python` of METADATA.
    pub requires_python: Option<String>,
    /// METADATA itself: what PEP 658 serves beside the wheel.
    pub metadata: Vec<u8>,
    /// What the start page tells people of it.
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
        match path.metadata() {
            Ok(about) if about.is_file() => {}
            Ok(_) => return Err(bad("it is no regular file".into()).next("name the wheel itself")),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(bad("there is no such file".into())),
            Err(e) => return Err(bad(format!("it cannot be read: {e}"))),
        }
        let file = FileAt::new(fs_err::File::open(path)?.into_file())?;
        let wheel = wheel::Wheel::open(&name, &file).map_err(|e| {
            if e.exit() != Exit::Misuse {
                return e;
            }
            let no = Error::misuse("no-wheel", format!("{shown} is no readable wheel: {}", e.what()));
            e.next_steps().iter().cloned().fold(no, Error::next)
        })?;
        let faults = wheel.faults()?;
        if !faults.is_empty() {
            return Err(bad(format!("its RECORD does not hold: {}", wheel::listed(faults)))
                .next("build or download the wheel again; do not publish this one"));
        }
        let header = |key: &str| wheel.headers().get(key).map(str::to_owned);
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
            let report = inspect::inspect(filename, &file, Depth::Verdict)?;
            about.libuv = Some(report.libuv);
            about.cuda = report.torch.cuda;
        }
        let (sha256, size) = digest_file(path)?;
        let metadata = wheel.metadata().to_vec();
        let stem = filename.trim_end_matches(".whl");
        let dir = path.parent().unwrap_or(Path::new("."));
        let beside = beside(dir, stem)?;
        for path in beside.iter().filter(|p| p.to_string_lossy().ends_with(audit::ENDINGS[0])) {
            if !audit::is_signed(path)? {
                // By its name everybody takes it for a signed one.
                return Err(Error::misuse("unsigned", format!("nobody signed {}", path.display()))
                    .next("sign the statement (`cargo xtask sign`), or remove this file"));
            }
        }
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

    /// Which of the files beside it is not what `stated` (name → SHA-256) says, is missing, or is one more.
    ///
    /// # Errors
    /// The world: one cannot be read.
    pub fn beside_differs(&self, stated: &BTreeMap<String, String>) -> Result<Option<String>> {
        let mut found = BTreeMap::new();
        for path in &self.beside {
            found.insert(path.file_name().unwrap_or_default().to_string_lossy().into_owned(), digest_file(path)?.0);
        }
        let differs = |name: &&String| found.get(*name) != stated.get(*name);
        Ok(found.keys().chain(stated.keys()).find(differs).cloned())
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

/// Whether a name is that of a file which can be published: a wheel, or what lies beside one.
pub fn is_file_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-+!".contains(c);
    !name.is_empty() && !name.starts_with('.') && name.chars().all(fits)
}

/// SHA-256 of bytes, in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}
