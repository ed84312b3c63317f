//! What a file is before it is published: a wheel whose name, METADATA and RECORD agree.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use pep440_rs::VersionSpecifiers;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::artifact::audit::{ENDINGS, StatementFile};
use crate::error::{Context, Error, Exit, Result};
use crate::inspect::{self, Depth, FileAt};
use crate::platform;
use crate::store::digest_reader;
use crate::wheel::{self, Cursor};

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
    pub beside: Vec<Beside>,
}

/// A file beside a wheel, as it was when it was looked at: whoever copies it compares.
#[derive(Debug, Clone)]
pub struct Beside {
    /// Where it is.
    pub path: PathBuf,
    /// SHA-256 of the file.
    pub sha256: String,
}

/// Endings of the files that `build-torch`, `sign` and `validate` put beside a wheel; a signed statement before one that
/// is not.
const BESIDE: &[&str] = &[".manifest.json", ".cdx.json", ENDINGS[0], ENDINGS[1], REPORT];
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
        let header = |key: &str| wheel.headers().get(key).map(|value| value.trim().to_owned());
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
        // Of the file that was looked at, whatever stands at the path by now.
        let reading = || format!("reading {}", path.display());
        let (sha256, size) = digest_reader(&mut Cursor::new(&file)).doing(reading)?;
        let metadata = wheel.metadata().to_vec();
        // Of `a.whl.whl` it is `a.whl`: what lies beside `a.whl` is not its own.
        let stem = filename.strip_suffix(".whl").unwrap_or(filename);
        let dir = path.parent().unwrap_or(Path::new("."));
        let examined = Self {
            path: path.to_owned(),
            filename: filename.to_owned(),
            name,
            sha256,
            size,
            requires_python,
            metadata,
            about,
            beside: beside(dir, stem)?,
        };
        examined.hold_beside()?;
        Ok(examined)
    }

    /// Holds its bytes against the SHA-256 of those that were meant: somebody may have put others there since they were
    /// chosen.
    ///
    /// # Errors
    /// The world: it has another digest.
    pub fn hold(&self, meant: &[String]) -> Result<()> {
        if meant.contains(&self.sha256) {
            return Ok(());
        }
        let what =
            format!("{} changed while it was looked at: its SHA-256 is {} now", self.path.display(), self.sha256);
        Err(Error::world("changed", what).next("do it again once nobody writes there"))
    }

    /// Holds what lies beside it against the statement there: everybody takes all of it for the wheel's own.
    ///
    /// # Errors
    /// Bad input: nobody signed what is called a signed statement, it is about other bytes, or the other files are not
    /// those that it speaks of.
    fn hold_beside(&self) -> Result<()> {
        let Some(file) = self.beside.iter().find(|file| file.is_statement()) else { return Ok(()) };
        let statement = StatementFile::read(&file.path)?;
        // By its name everybody takes it for a signed one.
        if file.name().ends_with(ENDINGS[0]) && !statement.is_signed() {
            return Err(Error::misuse("unsigned", format!("nobody signed {}", file.path.display()))
                .next("sign the statement (`cargo xtask sign`), or remove this file"));
        }
        let fault = if statement.statement.digest_of(&self.filename) == Some(self.sha256.as_str()) {
            self.beside_fault(&statement, false)
        } else {
            Some(format!("'{}' is not about these bytes: their SHA-256 is {}", file.name(), self.sha256))
        };
        match fault {
            Some(fault) => {
                Err(Error::misuse("beside", format!("{}: of the files beside it, {fault}", self.path.display()))
                    .next("they would be published with it: put those there that came with this wheel, or remove them"))
            }
            None => Ok(()),
        }
    }

    /// What of the files beside it is not as `statement` has it, in words. Where `all` must be in it, what it does not
    /// speak of is wrong too, but the report: that is made afterwards.
    pub fn beside_fault(&self, statement: &StatementFile, all: bool) -> Option<String> {
        self.beside.iter().find_map(|file| file.fault(statement, all))
    }

    /// Which of the files beside it is not what `stated` (name → SHA-256) says, is missing, or is one more.
    pub fn beside_differs(&self, stated: &BTreeMap<String, String>) -> Option<String> {
        let found: BTreeMap<String, &String> = self.beside.iter().map(|file| (file.name(), &file.sha256)).collect();
        let differs = |name: &&String| found.get(*name).copied() != stated.get(*name);
        found.keys().chain(stated.keys()).find(differs).cloned()
    }
}

impl Beside {
    /// Its file name.
    pub fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    fn is_statement(&self) -> bool {
        ENDINGS.iter().any(|ending| self.name().ends_with(ending))
    }

    /// Whether a statement says which bytes it has, or is what it says.
    pub fn is_told_by(&self, statement: &StatementFile) -> bool {
        self.is_statement() || statement.statement.digest_of(&self.name()).is_some()
    }

    fn fault(&self, of: &StatementFile, all: bool) -> Option<String> {
        let (name, whence) = (self.name(), of.name());
        if name.ends_with(ENDINGS[0]) {
            return (self.sha256 != of.sha256).then(|| format!("'{name}' is another file than '{whence}'"));
        }
        if name.ends_with(ENDINGS[1]) {
            let same = self.sha256 == of.sha256 || self.sha256 == sha256(&of.payload);
            return (!same).then(|| format!("'{name}' says something else than '{whence}'"));
        }
        match of.statement.digest_of(&name) {
            Some(stated) if stated == self.sha256 => None,
            Some(stated) => Some(format!("'{name}' has the SHA-256 {}; '{whence}' states {stated}", self.sha256)),
            None if all && !name.ends_with(REPORT) => Some(format!("'{whence}' says nothing of '{name}'")),
            None => None,
        }
    }
}

/// What tells of the making of the wheel `stem` in `dir`.
///
/// # Errors
/// Bad input: one of them is a link, a pipe, a folder: what is published must be a file of the folder itself.
fn beside(dir: &Path, stem: &str) -> Result<Vec<Beside>> {
    let mut found = Vec::new();
    for path in BESIDE.iter().map(|ending| dir.join(format!("{stem}{ending}"))) {
        match path.symlink_metadata() {
            Ok(meta) if meta.is_file() => {
                let reading = || format!("reading {}", path.display());
                let mut file = platform::open_regular(&path, false).doing(reading)?;
                let sha256 = digest_reader(&mut file).doing(reading)?.0;
                found.push(Beside { path, sha256 });
            }
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

/// Whether a file called `name` may lie beside the wheel of the file name `wheel`.
pub fn is_beside(wheel: &str, name: &str) -> bool {
    let stem = wheel.strip_suffix(".whl").unwrap_or(wheel);
    name.strip_prefix(stem).is_some_and(|ending| BESIDE.contains(&ending))
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
