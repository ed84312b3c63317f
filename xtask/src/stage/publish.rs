//! The end of a build: the artifacts, and what stands beside them, come into the output folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use torchmill_bytes::digest::sha256;

use super::build::Build;
use super::engine::{ensure, ensure_named, ensure_of, ensure_top, found, record_of, timings};
use super::graph::STAGES;
use super::objects::audit::Origins;
use super::origin::name_of;
use super::step::{Done, Step};
use super::steps::bundle::{self, Bundle};
use super::steps::companion::Companion;
use super::steps::provenance::{self, Provenance};
use super::steps::set::{REQUIREMENTS, Set};
use super::steps::verify::{self, Verify};
use super::steps::wheel::{self, Wheel};
use crate::artifact::json::json_file;
use crate::artifact::manifest::Input;
use crate::error::{Context, Error, Result};
use crate::event::Event;
use crate::platform;
use crate::store::{Store, digest_file, sweep_beside, write_atomically};

/// How a build ended.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// All stages are done.
    Done(Box<Artifacts>),
    /// It was asked to stop after a stage; this is where that stage's result stands.
    Stopped {
        /// The stage's name.
        after: &'static str,
        /// Where that stage's result is.
        folder: PathBuf,
    },
}

/// What `build-torch` hands over, in its output folder.
#[derive(Debug, Clone, Serialize)]
pub struct Artifacts {
    /// The wheel in the output folder.
    pub wheel: PathBuf,
    /// The bundle in the output folder.
    pub bundle: PathBuf,
    /// The manifest in the output folder.
    pub manifest: PathBuf,
    /// The in-toto statement in the output folder.
    pub statement: PathBuf,
    /// File name → digest and size, of all of them: what SHA256SUMS has.
    pub digests: BTreeMap<String, Input>,
    /// Where the objects came from, if not all were compiled on this machine.
    pub objects: Option<Origins>,
    /// What verify found out.
    pub verified: verify::Record,
    /// The companions, if there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub set: Option<SetFiles>,
}

/// The companions of a torch in the output folder.
#[derive(Debug, Clone, Serialize)]
pub struct SetFiles {
    /// Their wheels.
    pub wheels: Vec<PathBuf>,
    /// The statement of each.
    pub statements: Vec<PathBuf>,
    /// The file that pip and uv install the set from.
    pub requirements: PathBuf,
    /// What was found out when they were installed together.
    pub checks: Vec<verify::Check>,
    /// What stock has and these lack: package → what → why.
    pub lacks: BTreeMap<String, BTreeMap<String, String>>,
}

/// Runs all stages, or those until `options.until`, and puts the artifacts into the output folder.
///
/// # Errors
/// A stage fails.
pub fn run(build: &Build<'_>) -> Result<Outcome> {
    let last = build.options.until.as_deref().unwrap_or(Verify::NAME);
    let stage = STAGES.iter().find(|stage| stage.name == last);
    let after = stage.ok_or_else(|| Error::misuse("until", format!("there is no stage '{last}'")))?.name;
    if after != Verify::NAME {
        return Ok(Outcome::Stopped { after, folder: ensure_named(build, after)? });
    }
    let verified = ensure::<Verify>(build)?.record;
    let mut artifacts = publish(build, verified)?;
    if !build.companions.is_empty() {
        publish_set(build, &mut artifacts)?;
    }
    Ok(Outcome::Done(Box::new(artifacts)))
}

/// What the stages before verify made, in the store.
#[derive(Debug, Clone)]
pub struct Files {
    /// Path of the wheel.
    pub wheel: PathBuf,
    /// Path of the libtorch archive.
    pub bundle: PathBuf,
    /// The folder with manifest, bill of materials and statement.
    pub provenance: PathBuf,
    /// Where the objects came from, if not all were compiled on this machine.
    pub objects: Option<Origins>,
    /// Their names, and all digests.
    pub record: provenance::Record,
}

/// Runs all stages up to provenance and says which files came out.
///
/// # Errors
/// A stage fails.
pub fn files(build: &Build<'_>) -> Result<Files> {
    let provenance = ensure::<Provenance>(build)?;
    let (wheel, bundle) = (ensure_top::<Wheel>(build)?, ensure_top::<Bundle>(build)?);
    Ok(files_of(wheel, bundle, provenance))
}

/// What the stages before verify made, if all of them are done. Nothing is run, whatever is wrong with it: code of
/// others may have written it.
///
/// # Errors
/// As [`found`].
pub fn made(build: &Build<'_>) -> Result<Option<Files>> {
    let (wheel, bundle, provenance) = (found::<Wheel>(build)?, found::<Bundle>(build)?, found::<Provenance>(build)?);
    let (Some(wheel), Some(bundle), Some(provenance)) = (wheel, bundle, provenance) else { return Ok(None) };
    Ok(Some(files_of(wheel, bundle, provenance)))
}

fn files_of(wheel: Done<wheel::Record>, bundle: Done<bundle::Record>, provenance: Done<provenance::Record>) -> Files {
    Files {
        wheel: wheel.folder.join(wheel.record.file),
        bundle: bundle.folder.join(bundle.record.file),
        provenance: provenance.folder,
        objects: wheel.record.objects,
        record: provenance.record,
    }
}

/// Puts the artifacts, what stands beside them, SHA256SUMS and the timings into the output folder,
/// each whole or not at all.
fn publish(build: &Build<'_>, verified: verify::Record) -> Result<Artifacts> {
    let provenance = ensure::<Provenance>(build)?;
    let (provenance, record) = (provenance.folder, provenance.record);
    let out = &build.options.out;
    fs_err::create_dir_all(out)?;
    let (wheel, bundle) = match placed(build, &record.digests)? {
        Some(there) => there,
        None => put(build, &record.digests)?,
    };
    for name in [&record.manifest, &record.sbom, &record.statement] {
        write_if_changed(&out.join(name), &fs_err::read(provenance.join(name))?)?;
    }
    // Seconds by stage, and what was verified: true of this build and no other, so not in SHA256SUMS.
    let timings: BTreeMap<_, _> = timings(build)?.into_iter().collect();
    let facts = serde_json::json!({ "schema_version": 1, "stages": timings, "verified": verified });
    let stem = wheel.file.trim_end_matches(".whl");
    write_if_changed(&out.join(format!("{stem}.timings.json")), &json_file(&facts)?)?;
    note_sums(out, &record.digests)?;
    Ok(Artifacts {
        wheel: out.join(&wheel.file),
        bundle: out.join(&bundle.file),
        manifest: out.join(&record.manifest),
        statement: out.join(&record.statement),
        digests: record.digests,
        objects: wheel.objects,
        verified,
        set: None,
    })
}

/// What is kept of wheel and bundle, if both stand in the output folder with the bytes of `digests`: then those in the
/// store are not used. Hashing them would be most of what a build with nothing to do takes.
fn placed(build: &Build<'_>, digests: &BTreeMap<String, Input>) -> Result<Option<(wheel::Record, bundle::Record)>> {
    let (Some(wheel), Some(bundle)) = (record_of::<Wheel>(build)?, record_of::<Bundle>(build)?) else {
        return Ok(None);
    };
    for name in [&wheel.file, &bundle.file] {
        let there = match digests.get(name) {
            Some(input) => is_there(build.store, &build.options.out.join(name), input)?,
            None => false,
        };
        if !there {
            return Ok(None);
        }
    }
    for stage in [Wheel::NAME, Bundle::NAME] {
        build.events.emit(Event::StageCached { stage });
    }
    Ok(Some((wheel, bundle)))
}

/// Puts wheel and bundle, judged or made again, into the output folder.
fn put(build: &Build<'_>, digests: &BTreeMap<String, Input>) -> Result<(wheel::Record, bundle::Record)> {
    let (wheel, bundle) = (ensure_top::<Wheel>(build)?, ensure_top::<Bundle>(build)?);
    for (folder, name) in [(&wheel.folder, &wheel.record.file), (&bundle.folder, &bundle.record.file)] {
        let input = digests.get(name);
        let input = input.ok_or_else(|| Error::world("record", format!("nothing says which bytes {name} has")))?;
        place(build.store, &folder.join(name), &build.options.out.join(name), input)?;
    }
    Ok((wheel.record, bundle.record))
}

/// Puts the companions, what stands beside them, and the requirements of the set into the output folder.
fn publish_set(build: &Build<'_>, artifacts: &mut Artifacts) -> Result<()> {
    let out = &build.options.out;
    let set = ensure::<Set>(build)?;
    let (mut wheels, mut statements, mut lacks) = (Vec::new(), Vec::new(), BTreeMap::new());
    for (package, beside) in &build.companions {
        let done = ensure_of::<Companion>(build, package)?;
        for (name, input) in &done.record.digests {
            place(build.store, &done.folder.join(name), &out.join(name), input)?;
        }
        let statement = &done.record.statement;
        write_if_changed(&out.join(statement), &fs_err::read(done.folder.join(statement))?)?;
        note_sums(out, &done.record.digests)?;
        wheels.push(out.join(&done.record.file));
        statements.push(out.join(statement));
        if !beside.recipe.lacks.is_empty() {
            lacks.insert(package.clone(), beside.recipe.lacks.clone());
        }
        artifacts.digests.extend(done.record.digests);
    }
    let requirements = out.join(REQUIREMENTS);
    let own = fs_err::read_to_string(set.folder.join(REQUIREMENTS))?;
    write_if_changed(&requirements, merged(&requirements, &own, &build.python.minor()).as_bytes())?;
    artifacts.set = Some(SetFiles { wheels, statements, requirements, checks: set.record.checks, lacks });
    Ok(())
}

/// The lines of a set, beside those that stand there for other Pythons and the same torch.
fn merged(path: &Path, own: &str, minor: &str) -> String {
    let torch = |text: &str| {
        text.lines().find(|l| l.starts_with("torch==")).and_then(|l| Some(l.split_once(' ')?.0.to_owned()))
    };
    let there = text_there(path);
    let marker = format!("python_version == \"{minor}\"");
    let others = there.lines().filter(|l| l.contains("==") && !l.contains(&marker));
    let kept: Vec<&str> = if torch(&there) == torch(own) { others.collect() } else { Vec::new() };
    let mut lines: Vec<&str> = kept.into_iter().chain(own.lines()).collect();
    lines.sort_unstable();
    format!(
        "# Written by torchmill: a torch and its companions, every file by its digest. With the folder of the wheels:\n\
         #   pip install --find-links FOLDER -r {}\n{}\n",
        REQUIREMENTS,
        lines.join("\n")
    )
}

/// Adds lines to SHA256SUMS; other recipes' stay.
fn note_sums(out: &Path, digests: &BTreeMap<String, Input>) -> Result<()> {
    let path = out.join("SHA256SUMS");
    let mut sums: BTreeMap<String, String> = text_there(&path)
        .lines()
        .filter_map(|l| l.split_once("  ").map(|(d, n)| (n.to_owned(), d.to_owned())))
        .filter(|(n, _)| out.join(n).exists())
        .collect();
    sums.extend(digests.iter().map(|(n, d)| (n.clone(), d.sha256.clone())));
    let sums: String = sums.iter().map(|(n, d)| format!("{d}  {n}\n")).collect();
    write_if_changed(&path, sums.as_bytes())
}

/// Puts `from`, which is `input`, at `to`: a copy beside and a rename, unless it is there.
fn place(store: &Store, from: &Path, to: &Path, input: &Input) -> Result<()> {
    if is_there(store, to, input)? {
        return Ok(());
    }
    let dir = to.parent().unwrap_or(Path::new("."));
    let writing = || format!("writing {}", to.display());
    let prefix = format!(".{}.new-", name_of(to));
    sweep_beside(dir, &prefix);
    // A name that nobody else has: in two containers, two processes may have one number.
    let beside = tempfile::Builder::new().prefix(&prefix).tempfile_in(dir).doing(writing)?;
    // Held as long as it is written: what nobody holds, a killed run left. Where the file system knows no locks, it stays.
    let _ = beside.as_file().try_lock();
    // A copy, not a link: whoever edits dist/ must not edit the store.
    let source = fs_err::File::open(from)?;
    std::io::copy(&mut source.file(), &mut beside.as_file()).doing(writing)?;
    let about = source.metadata()?;
    beside.as_file().set_permissions(about.permissions()).doing(writing)?;
    beside.as_file().set_modified(about.modified()?).doing(writing)?;
    beside.as_file().sync_all().doing(writing)?;
    platform::persist(beside, to)?;
    if is_there(store, to, input)? {
        return Ok(());
    }
    let what = format!("{} has not the SHA-256 {} that was put there", to.display(), input.sha256);
    Err(Error::world("changed", what).next("the same command puts it there again; see who else writes to that folder"))
}

/// Whether the file at `to` is `input`. It is hashed, unless nothing about it has changed since it was: the store knows
/// that, which nobody writes to who can write to the folder alone.
fn is_there(store: &Store, to: &Path, input: &Input) -> Result<bool> {
    // A link is none of ours: what it leads to may be another file tomorrow.
    let Ok(about) = std::fs::symlink_metadata(to) else { return Ok(false) };
    if !about.is_file() || about.len() != input.size {
        return Ok(false);
    }
    let known = store.cache("placed").join(sha256(std::path::absolute(to)?.as_os_str().as_encoded_bytes()));
    let line = platform::stamp(&about).map(|stamp| format!("{} {stamp}", input.sha256));
    if line.is_some() && platform::read_text(&known, platform::MOST_TEXT).ok() == line {
        return Ok(true);
    }
    if digest_file(to)?.0 != input.sha256 {
        return Ok(false);
    }
    if let Some(line) = line {
        write_atomically(&known, line.as_bytes())?;
    }
    Ok(true)
}

/// A text of the output folder; nothing where there is no file of that name. Code of others may have written to that folder
/// as well (a closed room whose recipe was trusted): whoever opens a pipe waits.
fn text_there(path: &Path) -> String {
    let bytes = platform::read_regular(path, platform::MOST_TEXT).unwrap_or_default();
    String::from_utf8(bytes).unwrap_or_default()
}

fn write_if_changed(path: &Path, bytes: &[u8]) -> Result<()> {
    if platform::read_regular(path, bytes.len() as u64).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    write_atomically(path, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a set for one Python consists of; `digest` stands for its bytes.
    fn set(torch: &str, minor: &str, digest: &str) -> [String; 2] {
        let pin = |pin: &str| format!("{pin} ; python_version == \"{minor}\" --hash=sha256:{digest}");
        [pin("numpy==2.0.2"), pin(torch)]
    }

    fn sorted(sets: &[&[String]]) -> Vec<String> {
        let mut lines: Vec<String> = sets.concat();
        lines.sort();
        lines
    }

    #[test]
    fn builds_for_several_pythons_share_the_requirements_and_another_torch_replaces_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(REQUIREMENTS);
        let publish = |own: &[String], minor: &str| -> Vec<String> {
            let text = merged(&path, &format!("{}\n", own.join("\n")), minor);
            // However often it was written, it says once what it is.
            assert!(text.starts_with("# Written by torchmill") && text.matches('#').count() == 2, "{text}");
            fs_err::write(&path, &text).unwrap();
            text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
        };
        let torch = "torch==2.6.0+cpu";
        let (first, second) = (set(torch, "3.11", "a"), set(torch, "3.13", "b"));
        assert_eq!(publish(&first, "3.11"), first);
        assert_eq!(publish(&second, "3.13"), sorted(&[&first, &second]));
        // Built again, it takes the place of its own lines and of no others.
        let again = set(torch, "3.11", "c");
        assert_eq!(publish(&again, "3.11"), sorted(&[&again, &second]));
        assert_eq!(publish(&second, "3.13"), sorted(&[&again, &second]));
        // Another torch, if only by its local label, takes the place of all.
        let other = set("torch==2.6.0+cpu.libuv", "3.13", "d");
        assert_eq!(publish(&other, "3.13"), other);
    }

    /// A store in `dir`, a wheel that holds "right", where it is to be put, and what it is.
    fn to_be_placed(dir: &Path) -> (Store, PathBuf, PathBuf, Input) {
        let store = Store::open(Some(&dir.join("store"))).unwrap();
        let (from, to) = (dir.join("a.whl"), dir.join("dist/a.whl"));
        fs_err::create_dir(dir.join("dist")).unwrap();
        fs_err::write(&from, "right").unwrap();
        let (sha256, size) = digest_file(&from).unwrap();
        (store, from, to, Input { sha256, size, license: None, coordinates: Vec::new() })
    }

    #[test]
    fn what_was_changed_where_it_was_put_is_put_there_again_whatever_its_size_and_its_times_say() {
        let dir = tempfile::tempdir().unwrap();
        let (store, from, to, input) = to_be_placed(dir.path());
        let placed = || {
            // A clock's tick passes between what is known and what is changed.
            std::thread::sleep(std::time::Duration::from_millis(50));
            place(&store, &from, &to, &input).unwrap();
            assert_eq!(fs_err::read_to_string(&to).unwrap(), "right");
            fs_err::metadata(&to).unwrap()
        };
        let first = placed();
        let again = placed();
        assert_eq!(platform::stamp(&first), platform::stamp(&again), "it was put there twice");
        let modified = first.modified().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(50));
        fs_err::write(&to, "wrong").unwrap();
        std::fs::File::options().write(true).open(&to).unwrap().set_modified(modified).unwrap();
        let changed = fs_err::metadata(&to).unwrap();
        assert_eq!((changed.len(), changed.modified().unwrap()), (input.size, modified));
        placed();
        // Where nothing is known of it (on Windows nothing ever is), it is looked at.
        fs_err::write(&to, "other").unwrap();
        let known = store.cache("placed");
        assert_eq!(known.exists(), cfg!(unix));
        if known.exists() {
            fs_err::remove_dir_all(known).unwrap();
        }
        placed();
    }

    #[test]
    #[cfg(unix)]
    fn what_others_left_in_the_output_folder_is_not_followed_and_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let (store, from, to, input) = to_be_placed(dir.path());
        let (elsewhere, sums) = (dir.path().join("elsewhere"), to.with_file_name("SHA256SUMS"));
        fs_err::write(&elsewhere, "right").unwrap();
        std::os::unix::fs::symlink(&elsewhere, &to).unwrap();
        place(&store, &from, &to, &input).unwrap();
        assert!(fs_err::symlink_metadata(&to).unwrap().is_file());
        assert!(std::process::Command::new("mkfifo").arg(&sums).status().unwrap().success());
        note_sums(&dir.path().join("dist"), &BTreeMap::from([("a.whl".to_owned(), input)])).unwrap();
        assert!(fs_err::read_to_string(&sums).unwrap().ends_with("  a.whl\n"));
        fs_err::remove_file(&sums).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&sums).status().unwrap().success());
        write_if_changed(&sums, b"x").unwrap();
        assert_eq!(fs_err::read(&sums).unwrap(), b"x");
    }

    #[test]
    fn what_another_run_of_the_same_number_writes_there_stays_and_what_a_killed_one_left_goes() {
        let dir = tempfile::tempdir().unwrap();
        let (store, from, to, input) = to_be_placed(dir.path());
        let beside = |ending: &str| to.with_file_name(format!(".a.whl.new-{ending}"));
        let old = std::time::SystemTime::now() - std::time::Duration::from_secs(2 * 86_400);
        let begun = |ending: &str, is_old: bool| {
            let file = std::fs::File::create(beside(ending)).unwrap();
            if is_old {
                file.set_modified(old).unwrap();
            }
            file
        };
        let number = std::process::id().to_string();
        drop(begun(&number, false));
        drop(begun("left", true));
        let held = begun("held", true);
        held.lock().unwrap();
        place(&store, &from, &to, &input).unwrap();
        assert_eq!(fs_err::read_to_string(&to).unwrap(), "right");
        assert!(beside(&number).exists() && beside("held").exists() && !beside("left").exists());
        // Nothing of this run's own stays beside it.
        assert_eq!(fs_err::read_dir(dir.path().join("dist")).unwrap().count(), 3);
        let modified = |path: &Path| fs_err::metadata(path).unwrap().modified().unwrap();
        assert_eq!(modified(&to), modified(&from));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = |path: &Path| fs_err::metadata(path).unwrap().permissions().mode();
            assert_eq!(mode(&to), mode(&from));
        }
    }
}
