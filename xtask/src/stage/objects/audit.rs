//! Compiles a sample of the objects that came from elsewhere again, and holds them against what came. Which ones, nobody
//! can know beforehand: the build draws them by a seed of its own. One that differs ends the build, and everything that
//! came with it goes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::{Deserialize, Serialize};

use super::command::{Command, commands};
use super::import::{Imported, forget, supply};
use crate::error::{Error, Result};
use crate::platform;
use crate::stage::build::Build;
use crate::stage::work::Work;
use crate::store::{digest_file, write_atomically};
use crate::toolchain::{LAUNCH_COMMAND, Process, objects};

/// Percent of the objects that are compiled again, where nobody says otherwise.
const PERCENT: u8 = 1;
/// Objects that are compiled again at the least, if any are: one in a hundred of a small build is none.
const LEAST: usize = 10;
/// The file of a work folder that says what was drawn.
const FILE: &str = "objects.audit.json";

/// Where the objects of a build came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origins {
    /// Objects of the build.
    pub objects: u64,
    /// Of these, those that came from elsewhere.
    pub imported: u64,
    /// Of these, those that were compiled again here, to the same bytes.
    pub audited: u64,
    /// SHA-256 of the archive that they came in.
    pub archive: String,
    /// Who answers for it.
    pub writer: String,
}

/// What was drawn so far in a work folder.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Drawn {
    /// Objects that a sample was drawn of, by output: their SHA-256.
    of: BTreeMap<String, String>,
    /// Those that were compiled again, to the same bytes.
    same: BTreeSet<String>,
}

impl Drawn {
    fn load(work: &Work) -> Self {
        let text = std::fs::read(work.dir.join(FILE)).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    fn save(&self, work: &Work) -> Result<()> {
        let text = serde_json::to_vec(self).map_err(|e| Error::world("record", e.to_string()))?;
        write_atomically(&work.dir.join(FILE), &text)
    }
}

/// How many of `n` objects are compiled again.
fn sample_size(n: usize, percent: u8) -> usize {
    if percent == 0 {
        return 0;
    }
    (n * usize::from(percent)).div_ceil(100).max(LEAST).min(n)
}

/// Compiles a sample of what came from elsewhere since the last sample again, `jobs` at a time, with `env` beside the
/// build's own environment.
///
/// # Errors
/// The answer is no: an object is not what this machine's compiler makes. Compiling again fails.
pub fn sample(build: &Build<'_>, work: &Work, jobs: usize, env: &[(String, PathBuf)]) -> Result<()> {
    let mut drawn = Drawn::load(work);
    let delivered = objects::delivered(&work.dir);
    let fresh: Vec<(&String, &String)> =
        delivered.iter().filter(|(output, digest)| drawn.of.get(*output) != Some(*digest)).collect();
    if fresh.is_empty() {
        return Ok(());
    }
    let percent = build.options.cache_audit.unwrap_or(PERCENT);
    let count = sample_size(fresh.len(), percent);
    let mut random = fastrand::Rng::new();
    let seed = random.get_seed();
    let chosen = random.choose_multiple(fresh.iter().copied(), count);
    build.events.note(format!(
        "{} objects came from elsewhere; {count} of them are compiled again and compared (seed {seed:016x})",
        fresh.len()
    ));
    let known = if count == 0 { BTreeMap::new() } else { commands(work)? };
    let differing = again(build, work, &known, &chosen, jobs, env)?;
    if let Some((output, came, made)) = differing {
        return Err(refuse(build, work, &delivered, &output, &came, &made)?);
    }
    drawn.same.extend(chosen.iter().map(|(output, _)| (*output).clone()));
    drawn.of.extend(fresh.iter().map(|(output, digest)| ((*output).clone(), (*digest).clone())));
    drawn.save(work)
}

/// Compiles these again; the first that differs, with the digest that came and the one that was made.
fn again(
    build: &Build<'_>,
    work: &Work,
    known: &BTreeMap<String, Command>,
    chosen: &[(&String, &String)],
    jobs: usize,
    env: &[(String, PathBuf)],
) -> Result<Option<(String, String, String)>> {
    let (next, found) = (AtomicUsize::new(0), Mutex::new(Ok(None)));
    let take = || chosen.get(next.fetch_add(1, Ordering::SeqCst));
    std::thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, chosen.len().max(1)) {
            scope.spawn(|| {
                while let Some((output, came)) = take() {
                    let end = match known.get(*output) {
                        Some(command) => compiled(build, work, command, came, env),
                        // Nothing compiles it any more, so nothing says what it should be.
                        None => Ok(Some("no command".into())),
                    };
                    let end = end.map(|made| made.map(|made| ((*output).clone(), (*came).clone(), made)));
                    if !matches!(end, Ok(None)) {
                        next.store(chosen.len(), Ordering::SeqCst);
                        *found.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = end;
                    }
                }
            });
        }
    });
    platform::check_cancelled()?;
    found.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Compiles one object again by the very command that the build has for it, at its own place: its name may be in it.
/// The digest of what came out, if that is another one than `came`.
fn compiled(
    build: &Build<'_>,
    work: &Work,
    command: &Command,
    came: &str,
    env: &[(String, PathBuf)],
) -> Result<Option<String>> {
    let object = work.build().join(&command.output);
    let mut aside = object.clone().into_os_string();
    aside.push(".from-elsewhere");
    platform::rename(&object, &aside)?;
    let ran = Process::new(work.launcher())
        .arg(LAUNCH_COMMAND)
        .arg(&work.dir)
        .args(&command.argv)
        .envs(build.torch_env(work))
        .envs(env.iter().map(|(name, value)| (name, value)))
        .cwd(work.build())
        .check("audit", Some(&work.log("audit")));
    if let Err(e) = ran {
        platform::rename(&aside, &object)?;
        return Err(e.doing(format!("compiling {} again, which came from elsewhere", command.output)));
    }
    let made = digest_file(&object)?.0;
    // ninja goes by times: what was there is put back as it was, and it has read the list of files already.
    platform::rename(&aside, &object)?;
    if let Some(at) = command.argv.iter().position(|a| a == "-MF")
        && let Some(depfile) = command.argv.get(at + 1)
    {
        let _ = std::fs::remove_file(work.build().join(depfile));
    }
    Ok((made != came).then_some(made))
}

/// Removes all that came with an object that is not what it should be, and says so.
fn refuse(
    build: &Build<'_>,
    work: &Work,
    delivered: &BTreeMap<String, String>,
    output: &str,
    came: &str,
    made: &str,
) -> Result<Error> {
    let from = supply(build)?.map(|(_, record)| record);
    for output in delivered.keys() {
        let _ = std::fs::remove_file(work.build().join(output));
    }
    objects::forget(&work.dir);
    let _ = std::fs::remove_file(work.dir.join(FILE));
    forget(build)?;
    let (archive, writer) = match &from {
        Some(Imported { archive, sha256, writer, .. }) => (format!("{archive} (sha256:{sha256})"), writer.as_str()),
        None => ("an archive that is not in the store any more".into(), "somebody who is not known"),
    };
    Ok(Error::not_trusted(format!(
        "the object {output} of {archive} is not what {} makes here of its source: sha256:{came} came, sha256:{made} was compiled; {writer} answers for it",
        build.compiler.banner
    ))
    .next(format!(
        "the archive was removed, and {} objects of it in this build: run the same command again, and all is compiled here",
        delivered.len()
    ))
    .next("tell whoever made the archive; one that is honest comes from a compiler that makes other bytes from run to run"))
}

/// Where the objects of the build in `work` came from; `None` if all were compiled here.
///
/// # Errors
/// ninja cannot be run.
pub fn origins(build: &Build<'_>, work: &Work) -> Result<Option<Origins>> {
    let delivered = objects::delivered(&work.dir);
    if delivered.is_empty() {
        return Ok(None);
    }
    let drawn = Drawn::load(work);
    let all = commands(work)?;
    let there = |output: &&String| work.build().join(output).is_file();
    let from = supply(build)?.map(|(_, record)| record);
    Ok(Some(Origins {
        objects: all.keys().filter(there).count() as u64,
        imported: delivered.keys().filter(there).count() as u64,
        audited: drawn.same.iter().filter(|output| delivered.contains_key(*output)).count() as u64,
        archive: from.as_ref().map_or_else(String::new, |record| record.sha256.clone()),
        writer: from.map_or_else(|| "not known any more".into(), |record| record.writer),
    }))
}

#[cfg(test)]
mod tests {
    use super::sample_size;

    #[test]
    fn a_sample_is_one_percent_and_ten_objects_at_the_least_and_never_more_than_there_are() {
        assert_eq!(sample_size(1970, 1), 20);
        assert_eq!(sample_size(500, 1), 10);
        assert_eq!(sample_size(4, 1), 4);
        assert_eq!(sample_size(1970, 100), 1970);
        assert_eq!(sample_size(1970, 0), 0);
    }
}
