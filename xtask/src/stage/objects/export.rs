//! The objects of a finished compile as one archive, the same bytes whoever makes it: names are sorted, files have one
//! time and are called by their digests, and nothing of this machine is in it. The statement about it is of the same
//! kind as that of a wheel.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use rayon::prelude::*;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::about::{self, About};
use super::audit::origins;
use super::command::{Command, commands, reads};
use crate::artifact::json::json_file;
use crate::artifact::origin::{FOLDER, toolchain_sha256};
use crate::artifact::provenance::{BUILDER, PREDICATE_TYPE, STATEMENT_TYPE, Statement, Subject};
use crate::artifact::{Content, Member};
use crate::error::{Error, Result};
use crate::platform;
use crate::stage::build::Build;
use crate::stage::engine::{is_made, work};
use crate::stage::origin::{origin, toolchain};
use crate::stage::steps::bundle::write_tar;
use crate::stage::steps::compile::Compile;
use crate::stage::work::Work;
use crate::store::{digest_file, write_atomically};
use crate::toolchain::Launch;
use crate::toolchain::objects::{Entry, command_digest, inputs_digest, is_outside, is_plain, portable, real, travels};

/// What the parameters of the statement mean.
const BUILD_TYPE: &str = "https://github.com/torchmill/torchmill/blob/main/docs/farm.md#v1";

/// What came out.
#[derive(Debug, Clone, Serialize)]
pub struct Exported {
    /// The archive.
    pub file: std::path::PathBuf,
    /// Its SHA-256.
    pub sha256: String,
    /// Its size in bytes.
    pub size: u64,
    /// The statement about it, which is not signed yet.
    pub statement: std::path::PathBuf,
    /// What is in it.
    pub about: About,
}

/// Writes the objects of the finished compile of `build` to the folder `out`.
///
/// # Errors
/// Misuse: nothing was compiled, or the compile was not finished. The world: ninja or the disk.
pub fn export(build: &Build<'_>, out: &Path) -> Result<Exported> {
    if !is_made::<Compile>(build)? {
        return Err(Error::misuse(
            "not-compiled",
            format!(
                "there is no finished compile of {} for Python {} in the store",
                build.recipe.name, build.python.version
            ),
        )
        .next(format!("build it first: cargo xtask build-torch --recipe {}", build.recipe.name)));
    }
    let work = work(build)?;
    let _lock = build.store.lock(&format!("work-{}", work.name()), build.events)?;
    let (about, members) = members(build, &work)?;
    fs_err::create_dir_all(out)?;
    let file = out.join(about.file());
    // An archive that is cut off must not have the name of a whole one.
    let fresh = tempfile::Builder::new().prefix(".torchmill-").tempfile_in(out)?;
    write_tar(&members, fresh.as_file().try_clone()?, build.recipe.torch.epoch)?;
    platform::make_readable(fresh.as_file())?;
    platform::persist(fresh, &file)?;
    let (sha256, size) = digest_file(&file)?;
    let statement = out.join(about.file().replace(".tar.gz", ".provenance.json"));
    let mut text = stated(build, &about, &sha256)?;
    // Whoever signs it answers for objects of others as well: it is said, and a policy may refuse it.
    if let Some(origins) = origins(build, &work)? {
        build.events.warn(format!(
            "{} of the objects were not compiled on this machine, and {} of those were compiled again: the statement says so",
            origins.elsewhere(),
            origins.audited
        ));
        text.state_objects(&serde_json::json!(origins));
    }
    write_atomically(&statement, &text.to_bytes()?)?;
    Ok(Exported { file, sha256, size, statement, about })
}

/// An object that goes in.
struct Found {
    entry: Entry,
    names: String,
    path: std::path::PathBuf,
}

/// The members of the archive.
fn members(build: &Build<'_>, work: &Work) -> Result<(About, Vec<Member>)> {
    let python = build.python.include.display().to_string();
    let (commands, reads) = (commands(work)?, reads(work)?);
    let launch = Launch { work: work.dir.display().to_string() };
    let names: BTreeMap<&str, Vec<String>> = reads
        .iter()
        .filter(|(output, _)| commands.contains_key(*output))
        .map(|(output, paths)| {
            let names: BTreeSet<String> = paths.iter().map(|path| portable(&launch.rewrite(path), &python)).collect();
            (output.as_str(), names.into_iter().collect())
        })
        .collect();
    let digests = digests(work, names.values().flatten().map(String::as_str).collect(), &python);
    let judged: Vec<std::result::Result<Found, &'static str>> = commands
        .par_iter()
        .filter(|(output, _)| work.build().join(output).is_file())
        .map(|(output, command)| found(work, command, names.get(output.as_str()), &digests, &python))
        .collect();
    let mut about = About::of(build)?;
    let mut files = BTreeMap::new();
    let mut put = |name: String, content: Content| {
        files.insert(name, content);
    };
    for one in judged {
        let Found { entry, names, path } = match one {
            Ok(found) => found,
            Err(why) => {
                *about.left_out.entry(why.into()).or_default() += 1;
                continue;
            }
        };
        about.objects += 1;
        about.bytes += entry.size;
        for name in names.lines().filter(|name| is_outside(name)) {
            about.headers.extend(digests.get(name).map(|digest| (name.to_owned(), digest.clone())));
        }
        put(format!("objects/{}", entry.object), Content::File(path));
        put(format!("reads/{}", entry.reads), Content::Bytes(names.into_bytes()));
        put(format!("entries/{}", Entry::file(&entry.output)), Content::Bytes(json_file(&entry)?));
    }
    if about.objects == 0 {
        let why: Vec<String> = about.left_out.iter().map(|(why, n)| format!("{n} objects: {why}")).collect();
        return Err(Error::world(
            "no-objects",
            format!("no object of {} can travel: {}", work.dir.display(), why.join("; ")),
        )
        .next("was it compiled by a compiler that writes no dependency files?"));
    }
    for (path, bytes) in &origin(build)?.files {
        put(format!("{FOLDER}/{path}"), Content::Bytes(bytes.clone()));
    }
    put(about::FILE.into(), Content::Bytes(json_file(&about)?));
    let members = files.into_iter().map(|(name, content)| Member { name, content, executable: false }).collect();
    Ok((about, members))
}

/// SHA-256 of each of these files that can be read.
fn digests<'n>(work: &Work, names: BTreeSet<&'n str>, python: &str) -> HashMap<&'n str, String> {
    let build = work.build();
    names
        .into_par_iter()
        .filter_map(|name| Some((name, digest_file(&build.join(real(name, python))).ok()?.0)))
        .collect()
}

/// The object that `command` made, or why it does not travel.
fn found(
    work: &Work,
    command: &Command,
    names: Option<&Vec<String>>,
    digests: &HashMap<&str, String>,
    python: &str,
) -> std::result::Result<Found, &'static str> {
    if let Some(odd) = command.odd {
        return Err(odd);
    }
    let names: Vec<&str> = names.ok_or("ninja does not know what it read")?.iter().map(String::as_str).collect();
    if !is_plain(&command.output) || !names.iter().all(|name| travels(name)) {
        return Err("it reads files of this machine alone");
    }
    let words = command.relative(work);
    let inputs = inputs_digest(&names, |name| digests.get(name).cloned()).ok_or("a file that it read is gone")?;
    let path = work.build().join(&command.output);
    let (object, size) = digest_file(&path).map_err(|_| "it cannot be read")?;
    let names: String = names.iter().map(|name| format!("{name}\n")).collect();
    let entry = Entry {
        output: command.output.clone(),
        command: command_digest(&words, python),
        reads: hex::encode(Sha256::digest(&names)),
        inputs,
        object,
        size,
    };
    Ok(Found { entry, names, path })
}

/// The statement about the archive: what it is of, by which toolchain. It holds no time, so whoever compiles the
/// same writes the same.
fn stated(build: &Build<'_>, about: &About, sha256: &str) -> Result<Statement> {
    let origin = origin(build)?;
    let toolchain = toolchain(build)?;
    Ok(Statement {
        kind: STATEMENT_TYPE.into(),
        subject: vec![Subject {
            name: about.file(),
            digest: BTreeMap::from([("sha256".to_owned(), sha256.to_owned())]),
        }],
        predicate_type: PREDICATE_TYPE.into(),
        predicate: serde_json::json!({
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "recipe": { "name": about.recipe, "sha256": origin.recipe_sha256() },
                    "python": build.python.version,
                    "machine": about.machine,
                },
                "internalParameters": {
                    "epoch": build.recipe.torch.epoch,
                    "toolchain": { "sha256": toolchain_sha256(&toolchain), "is": toolchain },
                    "count": about.objects,
                },
            },
            "runDetails": {
                "builder": { "id": BUILDER, "version": { "torchmill": env!("CARGO_PKG_VERSION") } },
            },
        }),
    })
}
