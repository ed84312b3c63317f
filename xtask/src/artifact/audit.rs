//! Auditing an artifact: is it what its statement says, does its RECORD tell the truth, who signed,
//! and is that enough for a policy? Nothing in it is believed before its digest is known.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::dsse::{self, Envelope};
use super::json::few_values;
use super::origin::{FOLDER, Origin};
use super::provenance::Statement;
use super::trust::{Objects, Policy};
use crate::error::{Context, Error, Exit, Result};
use crate::source::tarball::Guarded;
use crate::store::digest_reader;
use crate::wheel::{self, Archive, Cursor, FileAt};

/// Most bytes of a statement.
pub const MOST_STATEMENT: u64 = 16 << 20;
/// Most bytes of all files of `torchmill/`, and most files: more is not what we wrote.
const MOST_ORIGIN: (u64, usize) = (16 << 20, 4096);
/// Most bytes of a recipe or a lock among them, of which ours have 70,000: TOML takes two hundred times the memory of
/// its text.
const MOST_RECIPE: u64 = 1 << 20;

/// What kind of artifact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// `.whl`
    Wheel,
    /// `.tar.gz` with `libtorch/`.
    Bundle,
    /// `.objects.tar.gz`: compiled objects.
    Objects,
}

/// A file that is taken to be an artifact of ours.
#[derive(Debug, Clone)]
pub struct Artifact {
    /// Path of the file.
    pub path: PathBuf,
    /// File name, by which the statement knows it.
    pub name: String,
    /// Wheel or bundle, by its name.
    pub kind: Kind,
}

/// What names of archives of compiled objects end with.
pub const OBJECTS_ENDING: &str = ".objects.tar.gz";

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at: `digest`, `RECORD`, `signature`.
    pub name: &'static str,
    /// Whether it holds; `None` where nobody asked for it.
    pub ok: Option<bool>,
    /// The evidence, or what is wrong.
    pub said: String,
}

impl Check {
    fn new(name: &'static str, outcome: std::result::Result<String, String>) -> Self {
        match outcome {
            Ok(said) => Self { name, ok: Some(true), said },
            Err(said) => Self { name, ok: Some(false), said },
        }
    }
}

impl Artifact {
    /// Takes the file at `path`, by its name.
    ///
    /// # Errors
    /// Bad input: not there, or neither wheel nor bundle.
    pub fn open(path: &Path) -> Result<Self> {
        let bad = |what: &str| Error::misuse("no-artifact", format!("{}: {what}", path.display()));
        let name = path.file_name().and_then(|n| n.to_str()).ok_or_else(|| bad("not the path of a file"))?.to_owned();
        let kind = if name.ends_with(".whl") {
            Kind::Wheel
        } else if name.ends_with(OBJECTS_ENDING) {
            Kind::Objects
        } else if name.ends_with(".tar.gz") {
            Kind::Bundle
        } else {
            return Err(bad(
                "neither a wheel (.whl) nor a libtorch bundle (.tar.gz) nor compiled objects (.objects.tar.gz)",
            ));
        };
        if !path.is_file() {
            return Err(bad("there is no such file"));
        }
        Ok(Self { path: path.to_owned(), name, kind })
    }

    /// Its name, less what the names of its kind end with.
    fn stem(&self) -> &str {
        let ending = match self.kind {
            Kind::Wheel => ".whl",
            Kind::Bundle => ".tar.gz",
            Kind::Objects => OBJECTS_ENDING,
        };
        self.name.strip_suffix(ending).unwrap_or(&self.name)
    }

    /// Whether it is an archive of compiled objects.
    pub fn is_objects(&self) -> bool {
        self.kind == Kind::Objects
    }

    fn unreadable(&self, e: impl std::fmt::Display) -> Error {
        let what = match self.kind {
            Kind::Wheel => "wheel (zip archive)",
            Kind::Bundle => "bundle (tar.gz archive)",
            Kind::Objects => "archive of compiled objects (tar.gz archive)",
        };
        Error::misuse("unreadable", format!("{} is no readable {what}: {e}", self.path.display()))
            .next("is the file complete? compare its size and digest with SHA256SUMS")
    }

    /// What it carries of its own making, if it does.
    ///
    /// # Errors
    /// Bad input: it cannot be read.
    pub fn origin(&self) -> Result<Option<Origin>> {
        self.origin_in(&self.file()?)
    }

    /// The same, of what was opened at its path before.
    fn origin_in(&self, file: &FileAt) -> Result<Option<Origin>> {
        let mut files = BTreeMap::new();
        let mut left = MOST_ORIGIN.0;
        let mut take = |path: &str, reader: &mut dyn Read| -> std::io::Result<()> {
            let mut bytes = Vec::new();
            reader.take(left + 1).read_to_end(&mut bytes)?;
            let Some(rest) = left.checked_sub(bytes.len() as u64).filter(|_| files.len() < MOST_ORIGIN.1) else {
                return Err(std::io::Error::other(format!(
                    "with '{}' it carries more than {} bytes or {} files of its making, more than torchmill writes",
                    path.escape_debug(),
                    MOST_ORIGIN.0,
                    MOST_ORIGIN.1
                )));
            };
            if path.starts_with("recipes/") && bytes.len() as u64 > MOST_RECIPE {
                let path = path.escape_debug();
                return Err(std::io::Error::other(format!("its '{path}' has more than {MOST_RECIPE} bytes")));
            }
            left = rest;
            files.insert(path.to_owned(), bytes);
            Ok(())
        };
        match self.kind {
            Kind::Wheel => {
                let archive = Archive::open(file).map_err(|e| self.refused(e.into()))?;
                for member in archive.members().iter().filter(|m| !m.is_folder()) {
                    let mut segments = member.name.splitn(3, '/');
                    if let (Some(top), Some(FOLDER), Some(rest)) = (segments.next(), segments.next(), segments.next())
                        && top.ends_with(".dist-info")
                    {
                        take(rest, &mut archive.read(member)).map_err(|e| self.unreadable(e))?;
                    }
                }
            }
            Kind::Bundle | Kind::Objects => {
                let folder = if self.kind == Kind::Bundle { "libtorch/share/torchmill/" } else { "torchmill/" };
                let file = BufReader::with_capacity(1 << 18, Cursor::new(file));
                let mut archive = tar::Archive::new(Guarded::new(flate2::bufread::GzDecoder::new(file)));
                for entry in archive.entries().map_err(|e| self.unreadable(e))? {
                    let mut entry = entry.map_err(|e| self.unreadable(e))?;
                    let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
                    if let Some(rest) = name.strip_prefix(folder)
                        && rest != super::sbom::FILE
                    {
                        take(rest, &mut entry).map_err(|e| self.unreadable(e))?;
                    }
                }
            }
        }
        Ok((!files.is_empty()).then_some(Origin { files }))
    }

    fn file(&self) -> Result<FileAt> {
        Ok(FileAt::new(fs_err::File::open(&self.path)?.into_file())?)
    }

    /// Holds a wheel's contents, of what was opened at its path, against its RECORD: `Ok` with a word on what was read,
    /// or all that is wrong.
    ///
    /// # Errors
    /// Bad input: it is no wheel that every reader understands alike.
    fn record(&self, file: &FileAt) -> Result<std::result::Result<String, String>> {
        let name: wheel::Name = self.name.parse().map_err(|e: String| Error::misuse("filename", e))?;
        let wheel = wheel::Wheel::open(&name, file).map_err(|e| self.refused(e))?;
        let faults = wheel.faults()?;
        if faults.is_empty() {
            let files = wheel.members().iter().filter(|m| !m.is_folder()).count();
            return Ok(Ok(format!("{} files are as RECORD says", files - 1)));
        }
        Ok(Err(wheel::listed(faults)))
    }

    fn refused(&self, e: Error) -> Error {
        if e.exit() == Exit::Misuse { self.unreadable(e.what()) } else { e }
    }
}

/// A statement, and the file that it was read from.
#[derive(Debug)]
pub struct StatementFile {
    /// Where it is.
    pub path: PathBuf,
    /// SHA-256 of the file, as it was when it was read.
    pub sha256: String,
    /// What it states.
    pub statement: Statement,
    /// The same as it stands there, without the envelope.
    pub payload: Vec<u8>,
    envelope: Option<Envelope>,
}

impl StatementFile {
    /// Reads the statement at `path`, in an envelope or as it is.
    ///
    /// # Errors
    /// Bad input: it is no statement.
    pub fn read(path: &Path) -> Result<Self> {
        let whence = path.display().to_string();
        let unreadable =
            |e: &dyn std::fmt::Display| Error::misuse("statement", format!("{whence} cannot be read: {e}"));
        // A pipe or a device has no end.
        if !path.metadata().map_err(|e| unreadable(&e))?.is_file() {
            return Err(unreadable(&"it is no file"));
        }
        let mut bytes = Vec::new();
        let file = std::fs::File::open(path).map_err(|e| unreadable(&e))?;
        file.take(MOST_STATEMENT + 1).read_to_end(&mut bytes).map_err(|e| unreadable(&e))?;
        if bytes.len() as u64 > MOST_STATEMENT {
            return Err(unreadable(&format!("it has more than {MOST_STATEMENT} bytes")));
        }
        few_values(&bytes).map_err(|why| unreadable(&why))?;
        let sha256 = hex::encode(Sha256::digest(&bytes));
        let signed = serde_json::from_slice::<serde_json::Value>(&bytes).is_ok_and(|v| v.get("payload").is_some());
        let (payload, envelope) = if signed {
            let envelope = Envelope::parse(&bytes, &whence)?;
            (envelope.payload(&whence)?, Some(envelope))
        } else {
            (bytes, None)
        };
        let statement = Statement::parse(&payload, &whence)?;
        Ok(Self { path: path.to_owned(), sha256, statement, payload, envelope })
    }

    /// Whether it has a signature, by whomever.
    pub fn is_signed(&self) -> bool {
        self.envelope.as_ref().is_some_and(|e| e.signature_count() > 0)
    }

    /// Its file name.
    pub fn name(&self) -> Cow<'_, str> {
        self.path.file_name().unwrap_or_default().to_string_lossy()
    }
}

/// File name endings of statements, signed first.
pub const ENDINGS: [&str; 2] = [".provenance.dsse.json", ".provenance.json"];

/// The statement beside an artifact that names it; a signed one before one that is not, and among those of a kind one of
/// the artifact's `digest`: a bundle has the same name whichever Python was there when it was built. The one that is
/// called as the artifact is comes before all others: everybody takes it for the artifact's own.
fn find_statement(artifact: &Artifact, digest: &str) -> Result<StatementFile> {
    let dir = artifact.path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut names: Vec<PathBuf> = fs_err::read_dir(dir)?.flatten().map(|e| e.path()).collect();
    let own = ENDINGS.map(|ending| format!("{}{ending}", artifact.stem()));
    names.sort_by_cached_key(|p| (!own.iter().any(|own| p.ends_with(own)), p.clone()));
    let mut broken = None;
    for ending in ENDINGS {
        let mut of_other_bytes = None;
        for path in names.iter().filter(|p| p.to_string_lossy().ends_with(ending)) {
            match StatementFile::read(path) {
                Ok(found) => match found.statement.digest_of(&artifact.name) {
                    Some(stated) if stated == digest => return Ok(found),
                    Some(_) => of_other_bytes = of_other_bytes.or(Some(found)),
                    None => {}
                },
                Err(e) => broken = Some(e),
            }
        }
        if let Some(found) = of_other_bytes {
            return Ok(found);
        }
    }
    Err(broken.unwrap_or_else(|| {
        Error::misuse(
            "no-provenance",
            format!("beside {} there is no statement about it (*{})", artifact.path.display(), ENDINGS[1]),
        )
        .next("put the statement that came with it beside it, or name it with --statement")
    }))
}

/// What was looked at, and of which bytes that holds: whoever read the artifact at another time compares.
#[derive(Debug)]
pub struct Audited {
    /// Everything that was looked at.
    pub checks: Vec<Check>,
    /// SHA-256 of the artifact, as it was when it was looked at.
    pub sha256: String,
    /// Digest of the recipe, lock and patches that it carried then, if it could be read.
    pub recipe: Option<String>,
    /// The statement that it was held against.
    pub statement: StatementFile,
}

impl Audited {
    /// Notes that what is to be used is not what was looked at: somebody wrote to the file in between.
    pub fn changed(&mut self) {
        let said = "the file was changed while it was looked at";
        self.checks.push(Check::new("digest", Err(said.to_owned())));
    }
}

/// Looks at everything.
///
/// # Errors
/// Bad input: no readable artifact, no statement. What does not hold is no error but a check.
pub fn audit(artifact: &Artifact, statement: Option<&Path>, policy: &Policy) -> Result<Audited> {
    let named = statement.map(StatementFile::read).transpose()?;
    // Opened once: digest, RECORD and recipe are those of one file, whatever is put into its place meanwhile.
    let file = artifact.file()?;
    let (digest, (contents, origin)) = rayon::join(
        || digest_reader(&mut Cursor::new(&file)),
        || {
            let contents = match artifact.kind {
                Kind::Wheel => artifact.record(&file).map(Some),
                Kind::Bundle | Kind::Objects => Ok(None),
            };
            (contents, artifact.origin_in(&file))
        },
    );
    let (digest, size) = digest.doing(|| format!("reading {}", artifact.path.display()))?;
    let found = match named {
        Some(found) => found,
        None => find_statement(artifact, &digest)?,
    };
    let mut checks = Vec::new();
    let stated = found.statement.digest_of(&artifact.name);
    let intact = stated == Some(digest.as_str());
    checks.push(Check::new(
        "digest",
        match stated {
            Some(_) if intact => Ok(format!("sha256:{digest} is what {} states", found.name())),
            Some(stated) => Err(format!(
                "the file has {size} bytes and the SHA-256 {digest}; the statement says {stated}: tampered with, cut off, or another build"
            )),
            None => Err(format!(
                "the statement is about other files: {}",
                found.statement.subject.iter().map(|s| s.name.as_str()).collect::<Vec<_>>().join(", ")
            )),
        },
    ));
    // A file that is not what it should be may well be unreadable too; one finding is enough.
    let soften = |e: Error| if intact { Err(e) } else { Ok(Err(e.what().to_owned())) };
    if let Some(contents) = contents.transpose() {
        checks.push(Check::new("RECORD", contents.or_else(soften)?));
    }
    let mut recipe = None;
    let origin = match origin {
        Ok(Some(origin)) => {
            let own = origin.recipe_sha256();
            recipe = Some(own.clone());
            let facts = origin.facts();
            if own != found.statement.recipe_sha256() {
                Err(format!(
                    "the recipe in the artifact has the digest {own}; the statement says {}",
                    found.statement.recipe_sha256()
                ))
            } else {
                match facts {
                    Ok(facts) => Ok(format!("recipe {} ({own}), torchmill {}", facts.recipe, facts.torchmill)),
                    Err(e) => Err(e.what().to_owned()),
                }
            }
        }
        Ok(None) => Err("the artifact carries no recipe: it was not made by torchmill".into()),
        Err(e) => soften(e)?,
    };
    checks.push(Check::new("recipe", origin));
    checks.extend(judged(&found, policy));
    Ok(Audited { checks, sha256: digest, recipe, statement: found })
}

/// The statement at `path`, and what was looked at of it: who signed it, and what a policy says to what it states.
///
/// # Errors
/// Bad input: no statement.
pub fn stated(path: &Path, policy: &Policy) -> Result<(Statement, Vec<Check>)> {
    let found = StatementFile::read(path)?;
    let checks = judged(&found, policy);
    Ok((found.statement, checks))
}

/// Signature and policy.
fn judged(found: &StatementFile, policy: &Policy) -> Vec<Check> {
    let about = &found.statement;
    let signature = signature(found, policy);
    let signed = signature.ok == Some(true);
    let listed = |name: &'static str, allowed: &Option<Vec<String>>, is: &str| match allowed {
        None => Check { name, ok: None, said: is.to_owned() },
        Some(_) if !signed => Check {
            name,
            ok: Some(false),
            said: format!("{is}, says a statement that no trusted key signed: it proves nothing"),
        },
        Some(list) if list.iter().any(|l| l == is) => Check { name, ok: Some(true), said: is.to_owned() },
        Some(_) => Check { name, ok: Some(false), said: format!("{is} is not in the policy") },
    };
    vec![
        signature,
        listed("policy: recipe", &policy.recipes, about.recipe_sha256()),
        listed("policy: toolchain", &policy.toolchains, about.toolchain_sha256()),
        listed("policy: builder", &policy.builders, about.builder()),
        objects(policy, about.foreign_objects(), signed),
    ]
}

/// Whether as many objects came from elsewhere as the policy allows.
fn objects(policy: &Policy, (foreign, audited): (u64, u64), signed: bool) -> Check {
    let name = "policy: objects";
    let is = match foreign {
        0 => "all were compiled by the builder".to_owned(),
        n => format!("{n} came from elsewhere, {audited} of them were compiled again to the same bytes"),
    };
    let (ok, allowed) = match policy.objects {
        None => return Check { name, ok: None, said: is },
        Some(Objects::Own) => (foreign == 0, "the policy allows none"),
        Some(Objects::Audited) => (audited >= foreign, "the policy wants all of them compiled again"),
    };
    if !signed {
        return Check::new(name, Err(format!("{is}, says a statement that no trusted key signed: it proves nothing")));
    }
    Check::new(name, if ok { Ok(is) } else { Err(format!("{is}; {allowed}")) })
}

fn signature(found: &StatementFile, policy: &Policy) -> Check {
    let name = "signature";
    let whence = found.name();
    // An envelope without a signature in it is a statement that nobody signed.
    let Some(envelope) = found.envelope.as_ref().filter(|_| policy.demands() || found.is_signed()) else {
        return if policy.demands() {
            Check::new(name, Err(format!("{whence} is not signed")))
        } else {
            Check { name, ok: None, said: "not signed".into() }
        };
    };
    if !policy.demands() {
        let count = envelope.signature_count();
        return Check { name, ok: None, said: format!("{count} signature(s); not checked: no key was given (--key)") };
    }
    if envelope.signatures.is_empty() {
        return Check::new(name, Err(format!("the signatures of {whence} were taken away")));
    }
    if policy.signers.is_empty() {
        return Check::new(name, Err("neither the policy nor --key names a key that must have signed".into()));
    }
    // Every group must be met: the policy's keys, and those of the command line.
    let by: std::result::Result<Vec<String>, String> = policy
        .signers
        .iter()
        .map(|keys| match envelope.signed_by(&found.payload, keys) {
            Some(key) => Ok(dsse::key_id(key)),
            None if keys.is_empty() => Err("the policy's list of keys is empty: it allows nothing".into()),
            None => Err(format!(
                "no signature of {whence} is by the key {}: another key made it, or the statement was changed",
                keys.iter().map(dsse::key_id).collect::<Vec<_>>().join(" or ")
            )),
        })
        .collect();
    Check::new(
        name,
        by.map(|mut ids| {
            ids.dedup();
            format!("by the key {}", ids.join(" and "))
        }),
    )
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;
    use crate::artifact::provenance::{PREDICATE_TYPE, STATEMENT_TYPE};

    /// An archive of compiled objects that carries this recipe.
    fn objects_with(recipe: &str) -> Vec<u8> {
        let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
        let mut header = tar::Header::new_gnu();
        header.set_size(recipe.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, "torchmill/recipes/x.toml", recipe.as_bytes()).unwrap();
        tar.into_inner().unwrap().finish().unwrap()
    }

    #[test]
    fn what_is_said_of_an_artifact_is_said_of_one_file_also_while_others_take_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let [path, next, statement] = ["x.objects.tar.gz", "next", "statement"].map(|name| dir.path().join(name));
        let files = ["a", "b"].map(objects_with);
        fs_err::write(&path, &files[0]).unwrap();
        let artifact = Artifact::open(&path).unwrap();
        let about = serde_json::json!({
            "_type": STATEMENT_TYPE,
            "subject": [{ "name": artifact.name, "digest": { "sha256": hex::encode(Sha256::digest(&files[0])) } }],
            "predicateType": PREDICATE_TYPE,
            "predicate": {},
        });
        fs_err::write(&statement, about.to_string()).unwrap();
        let judged = || {
            let audited = audit(&artifact, Some(&statement), &Policy::default()).unwrap();
            (audited.sha256, audited.recipe)
        };
        let put = |bytes: &Vec<u8>| {
            fs_err::write(&next, bytes).unwrap();
            fs_err::rename(&next, &path).unwrap();
        };
        let right = files.each_ref().map(|bytes| {
            put(bytes);
            judged()
        });
        assert!(right[0].0 != right[1].0 && right[0].1 != right[1].1, "{right:?}");
        let seen = std::thread::scope(|scope| {
            let judging = scope.spawn(|| (0..500).map(|_| judged()).collect::<Vec<_>>());
            files.iter().cycle().take_while(|_| !judging.is_finished()).for_each(put);
            judging.join().unwrap()
        });
        let mixed: Vec<_> = seen.iter().filter(|is| !right.contains(is)).collect();
        assert!(mixed.is_empty(), "{mixed:?}");
    }
}
