//! Building an artifact again: from nothing but itself (the recipe, lock and patches that it carries), or, where only the
//! statement about it is at hand, from the recipe that the statement means.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde::Serialize;

use super::again::Again;
use super::foreign::{self, Code, Trust};
use crate::artifact::audit::{self, Artifact, Kind, OBJECTS_ENDING};
use crate::artifact::origin::{Facts, Origin};
use crate::artifact::provenance::{Statement, Subject};
use crate::artifact::trust::Policy;
use crate::diff::{Difference, diff};
use crate::error::{Error, Result};
use crate::event::Sink;
use crate::recipe::{Workspace, is_sha256};
use crate::stage::objects::About;
use crate::stage::steps::fetch::Fetch;
use crate::stage::steps::provenance::Provenance;
use crate::stage::{self, Build, Chosen, Options, Step};
use crate::store::{KeyBuilder, Store, digest_file};

/// How something is to be built again.
pub struct Asked<'a> {
    /// Nothing but downloads (judged by the lock's digests) is taken from it; the room's store stands in it.
    pub store: &'a Store,
    /// Who is told.
    pub events: &'a dyn Sink,
    /// The Python, if another than the first one found that fits.
    pub python: Option<&'a str>,
    /// How stages run.
    pub options: Options,
    /// On what grounds code of others runs.
    pub trust: &'a Trust,
}

/// How building it again ended.
#[derive(Debug)]
pub struct Rebuilt {
    /// What came out.
    pub file: PathBuf,
    /// In what it differs from the artifact.
    pub difference: Difference,
    /// What of the toolchain is not what the artifact was built with: `compiler.version: 12.2.0 / 13.1.0`.
    pub toolchain: Vec<String>,
}

/// A file that a statement is about.
#[derive(Debug, Serialize)]
pub struct Stated {
    /// Its name.
    pub name: String,
    /// SHA-256, hexadecimal, as the statement has it.
    pub stated: String,
    /// The same of what came out; `None` if no such file did.
    pub rebuilt: Option<String>,
}

impl Stated {
    /// Whether the same bytes came out.
    pub fn is_same(&self) -> bool {
        self.rebuilt.as_ref() == Some(&self.stated)
    }
}

/// How building again what a statement is about ended.
#[derive(Debug)]
pub struct Restated {
    /// Each file that it is about.
    pub files: Vec<Stated>,
    /// As in [`Rebuilt`].
    pub toolchain: Vec<String>,
}

/// Rebuilds `artifact`, whose recipe and patches are code of others, in a closed room.
///
/// # Errors
/// The answer is no: nobody trusts it. Bad input: an artifact that carries no recipe, or one that this program or machine cannot build.
pub fn rebuild(artifact: &Artifact, asked: &Asked<'_>) -> Result<Rebuilt> {
    let origin = artifact.origin()?.ok_or_else(|| {
        Error::misuse("no-origin", format!("{} carries no recipe: torchmill did not make it", artifact.path.display()))
            .next("`cargo xtask inspect` tells what it is")
    })?;
    let facts = origin.facts()?;
    if facts.python.is_none() && artifact.kind != Kind::Bundle {
        return Err(Error::misuse(
            "origin",
            format!("{} does not say which Python it is for", artifact.path.display()),
        )
        .next("was this artifact made by torchmill, whole?"));
    }
    foreign::admit(artifact, &origin, None, asked.trust, asked.events)?;
    let (made, toolchain) = build_again(&origin, &facts, &artifact.name, asked, artifact.is_objects())?;
    let file = match artifact.kind {
        Kind::Wheel => made.wheel,
        Kind::Bundle => made.bundle,
        Kind::Objects => made.objects.ok_or_else(|| Error::world("rebuild", "no archive of objects came out"))?,
    };
    let difference = diff(&artifact.path, &file)?;
    Ok(Rebuilt { file, difference, toolchain })
}

/// Builds what the statement at `path` is about from the recipe of that name in `workspace`, which must be the one that it
/// means: what is built is code of whoever has the workspace, and nothing of the statement is believed.
///
/// # Errors
/// The answer is no: keys are given, and none of them signed it; the workspace is somebody else's, and nobody trusts it.
/// Bad input: no statement; another recipe, lock or patches than it means; one that this program or machine cannot build.
pub fn rebuild_stated(path: &Path, workspace: &Workspace, asked: &Asked<'_>) -> Result<Restated> {
    let name = stage::name_of(path);
    let policy = asked.trust.policy.as_ref();
    let (statement, checks) = audit::stated(path, policy.unwrap_or(&Policy::default()))?;
    if policy.is_some() {
        let by = foreign::believe(&checks, &name, "used").map_err(|e| e.next("name the key that signed it: --key"))?;
        asked.events.note(format!("{name} is signed by {by}"));
    } else if let Some(signature) = checks.iter().find(|check| check.name == "signature") {
        asked.events.note(format!("the signature of {name}: {}", signature.said));
    }
    let facts = statement.facts()?;
    let wanted = wanted(&statement, &name)?;
    refuse_companion(workspace, &facts, &name)?;
    let build = Build::open(workspace, asked.store, asked.events, &chosen(&facts, asked), asked.options.clone())?;
    let origin = stage::origin(&build)?;
    if origin.recipe_sha256() != statement.recipe_sha256() {
        return Err(Error::misuse(
            "other-recipe",
            format!(
                "{name} is about the recipe {} of the digest {}; here its lock, its patches and itself have {}",
                facts.recipe,
                statement.recipe_sha256().escape_debug(),
                origin.recipe_sha256()
            ),
        )
        .next("check out the commit that it was made from, or rebuild the artifact, which carries its recipe"));
    }
    let is_foreign = foreign::is_foreign(workspace, &facts.recipe);
    if is_foreign && policy.is_none() {
        Code::of_artifact(origin).admit(&facts.recipe, asked.trust, asked.events)?;
    }
    // Where the kernel offers no room, what is one's own runs without, as in any build.
    let trust = Trust { unconfined: asked.trust.unconfined || !is_foreign, ..asked.trust.clone() };
    let asked = Asked { trust: &trust, options: asked.options.clone(), ..*asked };
    let with_objects = wanted.iter().any(|file| file.name.ends_with(OBJECTS_ENDING));
    let (made, toolchain) = build_again(origin, &facts, &name, &asked, with_objects)?;
    let all = [made.wheel, made.bundle].into_iter().chain(made.beside).chain(made.objects);
    let digest = |path: PathBuf| Ok((stage::name_of(&path), digest_file(&path)?.0));
    let made = all.map(digest).collect::<Result<BTreeMap<_, _>>>()?;
    let files = wanted.into_iter().map(|file| Stated { rebuilt: made.get(&file.name).cloned(), ..file }).collect();
    Ok(Restated { files, toolchain })
}

/// The files that a statement is about, none of them rebuilt.
///
/// # Errors
/// Bad input: it is about none, about one that no recipe makes, or does not say which bytes.
fn wanted(statement: &Statement, name: &str) -> Result<Vec<Stated>> {
    const MADE: [&str; 4] = [".whl", ".tar.gz", ".manifest.json", ".cdx.json"];
    let bad = |what: String| Error::misuse("statement", format!("{name} {what}"));
    if statement.subject.is_empty() {
        return Err(bad("is about no file".into()));
    }
    let file = |subject: &Subject| {
        let name = subject.name.escape_debug();
        if !MADE.iter().any(|ending| subject.name.ends_with(ending)) {
            return Err(bad(format!("is about '{name}', which a recipe does not make")));
        }
        let stated = subject.digest.get("sha256").filter(|digest| is_sha256(digest));
        let stated = stated.ok_or_else(|| bad(format!("does not say the SHA-256 of '{name}'")))?.clone();
        Ok(Stated { name: subject.name.clone(), stated, rebuilt: None })
    };
    statement.subject.iter().map(file).collect()
}

/// What was built in a closed room: files of the room's own.
struct Made {
    wheel: PathBuf,
    bundle: PathBuf,
    /// The manifest and the bill of materials.
    beside: [PathBuf; 2],
    /// The archive of the compiled objects, where it was asked for.
    objects: Option<PathBuf>,
}

/// The file that was left at `path` in the room. Whoever wrote what ran there may have left a link, or named a path
/// that leads elsewhere: nothing outside is taken for what was built.
fn own_file(room: &Path, path: PathBuf) -> Result<PathBuf> {
    let real = fs_err::canonicalize(&path)?;
    if real.starts_with(fs_err::canonicalize(room)?) && real.is_file() {
        return Ok(path);
    }
    Err(Error::not_trusted(format!("{} is no file of the room that it should have been built in", path.display()))
        .next("nothing of what was built there is used: see what the recipe and its patches run"))
}

/// What is built again as `facts` say.
fn chosen<'a>(facts: &'a Facts, asked: &Asked<'a>) -> Chosen<'a> {
    Chosen { recipe: &facts.recipe, python: asked.python.or(facts.python.as_deref()), cuda_home: None, companions: &[] }
}

fn refuse_companion(workspace: &Workspace, facts: &Facts, name: &str) -> Result<()> {
    if !workspace.is_companion(&facts.recipe) {
        return Ok(());
    }
    Err(Error::misuse(
        "companion",
        format!("{name} is a companion: it was compiled against a torch that it does not carry"),
    )
    .next(format!("rebuild its torch ({})", facts.toolchain["torch"]["file"].as_str().unwrap_or("unknown")))
    .next("then build both in a clone: `cargo xtask build-torch --with PACKAGE`, and compare the digests"))
}

/// Builds `origin` in a closed room, and puts its objects together there, if they are asked for; what was made, and
/// what of the toolchain is not as `facts` say.
fn build_again(
    origin: &Origin,
    facts: &Facts,
    name: &str,
    asked: &Asked<'_>,
    with_objects: bool,
) -> Result<(Made, Vec<String>)> {
    let Asked { store, events, trust, .. } = *asked;
    let key = KeyBuilder::new("rebuild", 1)
        .text("recipe", &origin.recipe_sha256())
        .text("python", facts.python.as_deref().unwrap_or_default())
        .finish();
    // The workspace is made anew: another run that builds in this room would lose its recipe.
    let _alone = store.lock(&format!("rebuild-{}", key.short()), events)?;
    let (room, inner) = foreign::room_store(store, key.short())?;
    let root = room.join("workspace");
    if root.exists() {
        crate::store::remove_tree(&root)?;
    }
    for dir in ["recipes", "patches"] {
        fs_err::create_dir_all(root.join(dir))?;
    }
    origin.write(&root)?;
    foreign::mark(&root)?;
    let workspace = Workspace { root };
    // It is judged by what it is: a lock that does not fit its recipe ends here.
    refuse_companion(&workspace, facts, name)?;
    let build = Build::open(&workspace, store, events, &chosen(facts, asked), asked.options.clone())?;
    let wanted = facts.python.clone().unwrap_or_else(|| build.python.minor());
    if build.python.minor() != wanted || build.python.machine != facts.machine {
        return Err(Error::misuse(
            "other-python",
            format!(
                "{name} is for Python {wanted} on {}; {} is Python {} on {}",
                facts.machine,
                build.python.executable.display(),
                build.python.minor(),
                build.python.machine
            ),
        )
        .next(format!("name one with --python: a Python {wanted}")));
    }
    let mut here = stage::origin(&build)?.facts()?;
    if facts.python.is_none() {
        here = here.without_python();
    }
    let mut toolchain = Vec::new();
    compare("", &facts.toolchain, &here.toolchain, &mut toolchain);
    if facts.torchmill != here.torchmill {
        toolchain.push(format!("torchmill: {} / {}", facts.torchmill, here.torchmill));
    }
    for difference in &toolchain {
        events.warn(format!("this toolchain is not the artifact's: {difference}"));
    }
    // Downloads, each of a digest that is known, are all that is done outside of the room.
    stage::ensure::<Fetch>(&build)?;
    let exported = room.join("v1/exported");
    // Memory and cores are asked where they can be seen.
    let jobs = stage::jobs(&build);
    let no_compiler_cache = build.options.no_compiler_cache;
    let again = Again { until: Provenance::NAME, jobs, offline: true, no_compiler_cache };
    in_room(&build, &room, trust, again.arguments(&build), "building it again")?;
    if with_objects {
        // What is asked for them (ninja) stands in the room's store, and is as little to be trusted as what ran before.
        in_room(&build, &room, trust, exporting(&build, &exported), "putting its objects together")?;
    }
    foreign::check_room(&room)?;
    let options = Options { offline: true, ..build.options.clone() };
    let inside = Build::open(&workspace, &inner, events, &chosen(facts, asked), options)?;
    let files = stage::made(&inside)?.ok_or_else(|| {
        Error::world("rebuild", "the build ended well, and what it made is not in its store")
            .next("run it again; `cargo xtask clean` removes what earlier runs left")
    })?;
    let own = |path: PathBuf| own_file(&room, path);
    let beside = |name: &String| own(files.provenance.join(name));
    let objects = if with_objects { Some(exported.join(About::of(&inside)?.file())) } else { None };
    let made = Made {
        beside: [beside(&files.record.manifest)?, beside(&files.record.sbom)?],
        wheel: own(files.wheel)?,
        bundle: own(files.bundle)?,
        objects: objects.map(own).transpose()?,
    };
    Ok((made, toolchain))
}

/// The command line that puts the objects of a finished build together, in the folder `out`.
fn exporting(build: &Build<'_>, out: &Path) -> Vec<OsString> {
    let mut arguments: Vec<OsString> =
        ["cache", "export", "--offline", "--recipe", &build.recipe.name].map(OsString::from).into();
    arguments.extend(["--python".into(), build.python.executable.clone().into_os_string()]);
    arguments.extend(["--out".into(), out.as_os_str().to_owned()]);
    arguments
}

/// Runs this program with `arguments` in a closed room; `doing` says what for.
fn in_room(build: &Build<'_>, room: &Path, trust: &Trust, mut arguments: Vec<OsString>, doing: &str) -> Result<()> {
    arguments.extend(trust.telling.iter().map(OsString::from));
    let read = [build.workspace.root.clone()];
    let furniture = foreign::Furniture {
        store: room,
        read: &read,
        put: &[],
        write: &[],
        workspace: &build.workspace.root,
        cwd: &build.workspace.root,
        system: None,
        unconfined: trust.unconfined,
    };
    let mut command = foreign::command(build, &arguments, &furniture)?;
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let status = foreign::run(command)?;
    if status.success() {
        return Ok(());
    }
    Err(Error::world("rebuild", format!("{doing} ended with {status}"))
        .next("what it said stands above; the same command goes on where it stopped"))
}

/// Lists the leaves in which two JSON documents differ.
fn compare(path: &str, a: &serde_json::Value, b: &serde_json::Value, out: &mut Vec<String>) {
    match (a.as_object(), b.as_object()) {
        (Some(x), Some(y)) => {
            let keys: std::collections::BTreeSet<&String> = x.keys().chain(y.keys()).collect();
            for key in keys {
                let null = serde_json::Value::Null;
                let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                compare(&below, x.get(key).unwrap_or(&null), y.get(key).unwrap_or(&null), out);
            }
        }
        _ if a != b => out.push(format!("{path}: {a} / {b}")),
        _ => {}
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;

    #[test]
    fn what_leads_out_of_a_room_was_not_built_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let room = dir.path().join("room");
        fs_err::create_dir_all(room.join("out")).unwrap();
        let [outside, built, link, folder] =
            ["outside", "room/out/built", "room/out/link", "room/out/folder"].map(|name| dir.path().join(name));
        fs_err::write(&outside, "not built here").unwrap();
        fs_err::write(&built, "built").unwrap();
        std::os::unix::fs::symlink(&outside, &link).unwrap();
        std::os::unix::fs::symlink(dir.path(), &folder).unwrap();
        assert_eq!(own_file(&room, built.clone()).unwrap(), built);
        for path in [link, folder.join("outside"), outside, room.join("out/../../outside"), room.join("out")] {
            assert!(own_file(&room, path.clone()).is_err(), "{}", path.display());
        }
    }
}
