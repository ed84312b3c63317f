//! `publish`: nothing goes out that was not judged. Every wheel is verified (digest, RECORD, recipe,
//! signature, policy) and inspected (its store has libuv); all of them go, or none.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::depends;
use super::index::same_version;
use super::push::examine;
use super::wheel::Wheel;
use crate::artifact::audit::{Artifact, Check, StatementFile, audit};
use crate::artifact::trust::Policy;
use crate::compat::{self, Fit};
use crate::error::{Answer, Error, Result};

/// What was found out about a wheel.
#[derive(Debug, Serialize)]
pub struct Judged {
    /// The wheel's file name.
    pub filename: String,
    /// SHA-256 of the file.
    pub sha256: String,
    /// Whether its store has libuv; `None` for what is no torch.
    pub libuv: Option<bool>,
    /// What `verify` looked at.
    pub checks: Vec<Check>,
    /// Whether it may go out.
    pub ok: bool,
    #[serde(skip)]
    wheel: Wheel,
}

/// The wheels that `paths` name: files, or folders whose wheels are meant.
///
/// # Errors
/// Bad input: a path that is not there, a folder without wheels.
pub fn wheels(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut wheels = Vec::new();
    for path in paths {
        if !path.exists() {
            return Err(Error::misuse("no-wheel", format!("{}: there is no such file or folder", path.display())));
        }
        if !path.is_dir() {
            wheels.push(path.clone());
            continue;
        }
        let mut inside: Vec<PathBuf> = fs_err::read_dir(path)?
            .map(|entry| Ok(entry?.path()))
            .collect::<Result<Vec<_>>>()?
            .into_iter()
            .filter(|p| is_wheel(p))
            .collect();
        if inside.is_empty() {
            return Err(Error::misuse("no-wheel", format!("there is no wheel in the folder {}", path.display()))
                .next("`cargo xtask build-torch --out DIR` puts one there"));
        }
        inside.sort();
        wheels.extend(inside);
    }
    Ok(wheels)
}

/// Whether a wheel is meant: who looks into a pipe or a link to nothing that is called so says what it is.
fn is_wheel(path: &Path) -> bool {
    path.extension().is_some_and(|x| x == "whl") && !path.is_dir()
}

/// Judges wheels by `policy`, and companions by the torch that they ask for. Without `libuv_only`, a torch whose store
/// has no libuv may go out too.
///
/// # Errors
/// Bad input: no wheel, a damaged one, one without a statement about it.
pub fn judge(paths: &[PathBuf], policy: &Policy, libuv_only: bool) -> Result<Vec<Judged>> {
    let wheels = examine(paths)?;
    let besides = wheels.iter().map(|wheel| beside_its_torch(wheel, &wheels)).collect::<Result<Vec<_>>>()?;
    let judged = wheels.into_iter().zip(besides).map(|(wheel, beside)| {
        let mut audited = audit(&Artifact::open(&wheel.path)?, None, policy)?;
        if audited.sha256 != wheel.sha256 {
            audited.changed();
        }
        let mut checks = audited.checks;
        checks.extend(beside_is_told(&wheel, &audited.statement, policy.demands()));
        checks.extend(beside);
        let libuv = wheel.about.libuv;
        let ok = checks.iter().all(|c| c.ok != Some(false)) && !(libuv_only && libuv == Some(false));
        Ok(Judged { filename: wheel.filename.clone(), sha256: wheel.sha256.clone(), libuv, checks, ok, wheel })
    });
    judged.collect()
}

/// Whether the files that go out with a wheel are those that the statement speaks of, by which it was judged; under a
/// policy it must speak of `all` of them.
fn beside_is_told(wheel: &Wheel, statement: &StatementFile, all: bool) -> Option<Check> {
    let name = "files beside it";
    if wheel.beside.is_empty() {
        return None;
    }
    if let Some(fault) = wheel.beside_fault(statement, all) {
        return Some(Check { name, ok: Some(false), said: fault });
    }
    let whence = statement.name();
    let silent: Vec<String> =
        wheel.beside.iter().filter(|file| !file.is_told_by(statement)).map(|file| file.name()).collect();
    let ok = (silent.len() < wheel.beside.len()).then_some(true);
    let said = match (ok, &silent[..]) {
        (_, []) => format!("as '{whence}' has them"),
        (None, silent) => format!("'{whence}' says nothing of {}", silent.join(", ")),
        (_, silent) => format!("as '{whence}' has them; it says nothing of {}", silent.join(", ")),
    };
    Some(Check { name, ok, said })
}

/// Whether a companion loads on the very torch that it asks for, if that one goes out with it.
fn beside_its_torch(wheel: &Wheel, all: &[Wheel]) -> Result<Option<Check>> {
    let name = "fits its torch";
    let metadata = String::from_utf8_lossy(&wheel.metadata);
    let platform = depends::platform_of(&wheel.name);
    let asked = depends::requirements(&metadata, &[], platform);
    let asked = asked.iter().filter(|r| r.name.as_ref() == "torch").find_map(crate::recipe::pinned);
    let Some(version) = asked.filter(|_| wheel.name.project != "torch") else { return Ok(None) };
    let of_it = |w: &&Wheel| {
        let its = depends::platform_of(&w.name);
        w.name.project == "torch"
            && same_version(&w.name.version, &version)
            && w.name.python == wheel.name.python
            && (its.system, its.machine) == (platform.system, platform.machine)
    };
    let Some(torch) = all.iter().find(of_it) else {
        let said =
            format!("it asks for torch {version}, which does not go out with it for its platform: not held against it");
        return Ok(Some(Check { name, ok: None, said }));
    };
    let nowhere = || Err(Error::world("compat", "a wheel names its own target"));
    let opened = compat::open_torch(&torch.path.display().to_string(), nowhere)?;
    let report = compat::report(&opened, &[wheel.path.display().to_string()], &[])?;
    let Some(verdict) = report.packages.first() else { return Ok(None) };
    let ok = match verdict.verdict {
        Fit::Fits => Some(true),
        Fit::DoesNotFit => Some(false),
        Fit::CannotBeTold => None,
    };
    let mut said = format!("beside {}: {}", torch.filename, verdict.verdict.words());
    if let Some(reason) = verdict.reasons.first() {
        said.push_str(&format!(": {}", reason.words().0));
    }
    Ok(Some(Check { name, ok, said }))
}

/// The wheels, if all of them may go out; else the answer no, with the names of those that may not, and why.
///
/// # Errors
/// An [`Answer::No`].
pub fn accepted(judged: &[Judged], libuv_only: bool) -> Result<Vec<Wheel>, Answer> {
    let refused: Vec<String> = judged
        .iter()
        .filter(|j| !j.ok)
        .map(|j| {
            let mut why: Vec<&str> = j.checks.iter().filter(|c| c.ok == Some(false)).map(|c| c.name).collect();
            if libuv_only && j.libuv == Some(false) {
                why.push("its store has no libuv");
            }
            format!("{} ({})", j.filename, why.join(", "))
        })
        .collect();
    if refused.is_empty() {
        return Ok(judged.iter().map(|j| j.wheel.clone()).collect());
    }
    Err(Answer::no("not-published", format!("nothing was published: {} may not go out", refused.join(", ")))
        .next("`cargo xtask verify` and `cargo xtask inspect` say more about one of them"))
}
