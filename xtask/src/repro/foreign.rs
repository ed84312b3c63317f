//! Recipes, patches and CMake modules that came from elsewhere are code of whoever wrote them: they run
//! only when a trusted key signed them or the user said so, and then in a closed room.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::artifact::audit::{Artifact, Check, audit};
use crate::artifact::origin::Origin;
use crate::artifact::trust::Policy;
use crate::error::{Context, Error, Result};
use crate::event::Sink;
use crate::platform::{self, Room};
use crate::recipe::{Recipe, Workspace};
use crate::stage::Build;
use crate::store::Store;

/// A file at the root of a workspace that came out of an artifact.
const MARK: &str = ".from-an-artifact";
/// What to do about an artifact that keys or a policy refuse.
const MORE: &str = "`cargo xtask verify` says more; without --key and --policy, --trust asks you alone";
/// Names the store of a closed room, to the program in it.
pub const ROOM_VARIABLE: &str = "TORCHMILL_ROOM";
/// The same of the workspace that the program works in, which need not be above the folder that it starts in.
const WORKSPACE_VARIABLE: &str = "TORCHMILL_ROOM_WORKSPACE";

/// Whether the user trusts code that nobody whom they trust signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// Nothing was said: it does not run.
    Nothing,
    /// `--trust`: it runs after it was shown.
    Yes,
    /// `--trust=SHA256`: it runs if it is what was shown before.
    Digest(String),
}

/// On what grounds code of others runs.
#[derive(Debug, Clone)]
pub struct Trust {
    /// Whose signature counts; keys are asked for if it is there.
    pub policy: Option<Policy>,
    /// What the user said.
    pub said: Said,
    /// Run it without a closed room where the kernel offers none.
    pub unconfined: bool,
    /// How the program in the room tells of its work: `--json`, `--quiet`.
    pub telling: Vec<&'static str>,
}

/// What would run, for people.
#[derive(Debug)]
pub struct Code {
    /// Digest of recipe, lock and patches.
    pub sha256: String,
    /// Where it comes from, a line each: files that an artifact carries, or sources by coordinate and patches.
    pub parts: Vec<String>,
}

impl Code {
    /// What an artifact carries.
    pub fn of_artifact(origin: &Origin) -> Self {
        let parts = origin
            .code()
            .map(|(path, bytes)| {
                format!(
                    "{} ({} bytes, sha256:{})",
                    path.escape_debug(),
                    bytes.len(),
                    &hex::encode(Sha256::digest(bytes))[..16]
                )
            })
            .collect();
        Self { sha256: origin.recipe_sha256(), parts }
    }

    /// What a recipe draws in that is made of these `files`: its own and its lock, then those that it extends.
    pub fn of_recipe(recipe: &Recipe, files: &[(PathBuf, Vec<u8>)]) -> Self {
        let mut hash = Sha256::new();
        for (_, bytes) in files {
            hash.update(Sha256::digest(bytes));
        }
        let mut parts: Vec<String> = recipe
            .source
            .iter()
            .flat_map(|s| {
                s.coordinates
                    .iter()
                    .map(move |c| format!("{} from {}", s.name.escape_debug(), c.to_string().escape_debug()))
            })
            .collect();
        parts.extend(recipe.patch.iter().map(|p| format!("patches/{}", p.file.escape_debug())));
        let base = |path: &PathBuf| format!("what it extends: {}", path.display().to_string().escape_debug());
        parts.extend(files.iter().skip(2).map(|(path, _)| base(path)));
        Self { sha256: hex::encode(hash.finalize()), parts }
    }

    fn shown(&self, what: &str) -> String {
        let parts: String = self.parts.iter().map(|p| format!("\n    {p}")).collect();
        format!("{what} runs code of whoever wrote it, sha256:{}:{parts}", self.sha256)
    }

    /// Whether it may run for what the user said, nobody having signed it.
    ///
    /// # Errors
    /// The answer is no; what would run stands in it.
    pub fn admit(&self, what: &str, trust: &Trust, events: &dyn Sink) -> Result<()> {
        let no = |why: &str| {
            Error::not_trusted(format!("{why}: {}", self.shown(what)))
                .next(format!("read it, and say so: --trust={}", self.sha256))
        };
        match &trust.said {
            Said::Yes => {
                events.warn(format!("trusted because --trust was given: {}", self.shown(what)));
                Ok(())
            }
            Said::Digest(digest) if *digest == self.sha256 => Ok(()),
            Said::Digest(digest) => Err(no(&format!("this is not what --trust={} names", digest.escape_debug()))),
            Said::Nothing => Err(no("nobody whom you trust signed it")),
        }
    }
}

/// Whether what `artifact` carries may run.
///
/// # Errors
/// The answer is no. Bad input: there are keys, and no statement.
pub fn admit(
    artifact: &Artifact,
    origin: &Origin,
    statement: Option<&Path>,
    trust: &Trust,
    events: &dyn Sink,
) -> Result<()> {
    let code = Code::of_artifact(origin);
    let Some(policy) = &trust.policy else {
        return code.admit(&artifact.name, trust, events).map_err(|e| {
            e.next("or name the key that must have signed it: --key FILE, --policy FILE or TORCHMILL_POLICY")
        });
    };
    let mut audited = audit(artifact, statement, policy)?;
    if audited.recipe.as_ref() != Some(&code.sha256) {
        // What was audited is not what was read before, and would run.
        audited.changed();
    }
    believe(&audited.checks, &artifact.name, "run").map_err(|e| e.next(MORE))?;
    events.note(format!("{} is signed by a key that is trusted, and is what its statement says", artifact.name));
    Ok(())
}

/// Whether a trusted key signed it, and nothing that was looked at is wrong; who signed it.
///
/// # Errors
/// The answer is no: `what` is not `used`.
pub fn believe(checks: &[Check], what: &str, used: &str) -> Result<String> {
    let failed: Vec<String> =
        checks.iter().filter(|c| c.ok == Some(false)).map(|c| format!("{}: {}", c.name, c.said)).collect();
    match checks.iter().find(|c| c.name == "signature" && c.ok == Some(true)) {
        Some(signature) if failed.is_empty() => Ok(signature.said.trim_start_matches("by ").to_owned()),
        _ => {
            let why = if failed.is_empty() { "no trusted key signed it".to_owned() } else { failed.join("; ") };
            Err(Error::not_trusted(format!("{what} is not {used}: {why}")))
        }
    }
}

/// Whether the objects in `artifact`, whose digest is `sha256`, may become a part of what is built; who answers for
/// them.
///
/// # Errors
/// The answer is no. Bad input: there are keys, and no statement, or the archive is not what its statement says.
pub fn admit_objects(
    artifact: &Artifact,
    sha256: &str,
    statement: Option<&Path>,
    trust: &Trust,
    events: &dyn Sink,
) -> Result<String> {
    let Some(policy) = &trust.policy else {
        let code =
            Code { sha256: sha256.to_owned(), parts: vec!["compiled objects, which become a part of torch".into()] };
        code.admit(&artifact.name, trust, events).map_err(|e| {
            e.next("or name the key that must have signed it: --key FILE, --policy FILE or TORCHMILL_POLICY")
        })?;
        return Ok("nobody (--trust)".into());
    };
    let mut audited = audit(artifact, statement, policy)?;
    if audited.sha256 != sha256 {
        audited.changed();
    }
    let checks = audited.checks;
    if let Some(digest) = checks.iter().find(|c| c.name == "digest" && c.ok == Some(false)) {
        return Err(Error::misuse("objects-damaged", format!("{} is not used: {}", artifact.name, digest.said))
            .next("fetch the archive and its statement again, from whoever published them"));
    }
    believe(&checks, &artifact.name, "used").map_err(|e| e.next(MORE))
}

/// Notes that the workspace at `root` came out of an artifact.
///
/// # Errors
/// It cannot be written.
pub fn mark(root: &Path) -> Result<()> {
    Ok(fs_err::write(root.join(MARK), "What stands here is not ours: it is run with --trust, in a closed room.\n")?)
}

/// Whether `workspace` came out of an artifact: a build ended there, whatever its recipe says of itself.
pub fn is_of_artifact(workspace: &Workspace) -> bool {
    workspace.root.join(MARK).exists()
}

/// Whether `recipe` came from elsewhere: it stands outside of the workspace, or extends one that does, or the workspace
/// came out of an artifact.
pub fn is_foreign(workspace: &Workspace, recipe: &str) -> bool {
    if is_of_artifact(workspace) {
        return true;
    }
    // Where nobody can tell what is ours, nothing is. What is not there is refused by name, later; what cannot be read now
    // may be read then, and counts by where it stands.
    let own = fs_err::canonicalize(workspace.recipes()).ok();
    let is_own = |path: PathBuf| own.as_ref().is_some_and(|own| path.starts_with(own));
    let (files, _) = workspace.followed(recipe);
    files.iter().any(|file| fs_err::canonicalize(file).is_ok_and(|path| !is_own(path)))
}

/// Whether this program runs in a closed room; then its store's folder.
pub fn inside() -> Option<PathBuf> {
    std::env::var_os(ROOM_VARIABLE).map(PathBuf::from)
}

/// Where this program runs in a closed room: the workspace that it was given there.
pub fn workspace_inside() -> Option<Workspace> {
    let root = std::env::var_os(WORKSPACE_VARIABLE).map(PathBuf::from)?;
    inside().map(|_| Workspace { root })
}

/// The store of a room, inside `store`: it has nothing in common with it but the downloads, which it reads.
///
/// # Errors
/// It cannot be made; as [`check_room`].
pub fn room_store(store: &Store, name: &str) -> Result<(PathBuf, Store)> {
    let root = store.root().join("inner").join(name);
    check_room(&root)?;
    let inner = Store::open(Some(&root))?;
    Ok((root, inner))
}

/// Most bytes of the record of a result, whose values take up to ninety times the memory of their text: those of a store
/// have some thousand.
const MOST_RECORD: u64 = 1 << 20;
/// The same of what else a store keeps in a file: lists have some hundred bytes for each file of a result, and a tree of
/// PyTorch has tens of thousands of them.
const MOST_KEPT: u64 = 32 << 20;

/// Holds what was left of the store of the room at `root` against what a store is. Code of others wrote in it: where it put
/// a link in the place of a folder, a result or a lock, what is done here would be done where that leads; whoever reads a
/// pipe waits for ever, and of a file that is not on the disk at all any size can be read into memory.
///
/// # Errors
/// The answer is no: such a thing stands there.
pub fn check_room(root: &Path) -> Result<()> {
    let store = root.join("v1");
    let deep = ["stages", "locks"].map(|name| store.join(name));
    let counts = |entry: &walkdir::DirEntry| entry.depth() < 2 || deep.iter().any(|dir| entry.path().starts_with(dir));
    // `stages/STAGE/KEY/out`: what stands below, its list of files tells.
    let all = walkdir::WalkDir::new(&store).max_depth(4).into_iter().filter_entry(counts);
    for entry in all.flatten() {
        let most = if entry.file_name() == "stage.json" { MOST_RECORD } else { MOST_KEPT };
        let what = if entry.path_is_symlink() {
            "is a link"
        } else if !entry.file_type().is_dir() && !entry.file_type().is_file() {
            "is neither a file nor a folder"
        } else if entry.file_type().is_file() && entry.metadata().is_ok_and(|about| about.len() > most) {
            "has more bytes than a store keeps of a result"
        } else {
            continue;
        };
        let path = entry.path().display();
        return Err(Error::not_trusted(format!(
            "{path} {what}, put there by what ran in that room: nothing in it is used"
        ))
        .next("`cargo xtask clean` removes the rooms; see what the recipe and its patches run"));
    }
    Ok(())
}

/// Holds the folders that a room may write to against what is run, or believed, outside of it: what of the user's home, of
/// the workspace and of the store, which are among `own`, stands in one of them, code of others could replace.
///
/// # Errors
/// Bad input: one of them holds such a folder, or anything at all: what lies there could be replaced as well, and be taken
/// for what it was. The world: it cannot be found.
pub fn check_written(folders: &[PathBuf], own: &[&Path]) -> Result<()> {
    let home = platform::home_dir();
    for folder in folders {
        let real = fs_err::canonicalize(folder)?;
        let holds = |path: &&Path| fs_err::canonicalize(path).is_ok_and(|path| path.starts_with(&real));
        if let Some(held) = own.iter().copied().chain(home.as_deref()).find(holds) {
            return Err(Error::misuse(
                "closed-room",
                format!("code of others would write to {}, which holds {}", folder.display(), held.display()),
            )
            .next("name a folder for what comes out: --out DIR"));
        }
        if let Some(held) = fs_err::read_dir(folder)?.next().transpose()? {
            let (folder, held) = (folder.display(), held.file_name());
            let what = format!("code of others would write to {folder}, and could replace {}", held.display());
            return Err(Error::misuse("closed-room", what).next("name an empty folder for what comes out: --out DIR"));
        }
    }
    Ok(())
}

/// What a closed room has, beside the toolchain of a build and the downloads of its store.
#[derive(Debug, Clone, Copy)]
pub struct Furniture<'a> {
    /// The room's own store.
    pub store: &'a Path,
    /// What can be read.
    pub read: &'a [PathBuf],
    /// What can be read, and stands elsewhere in the room: where it is, and where it is there.
    pub put: &'a [(PathBuf, PathBuf)],
    /// What can be written.
    pub write: &'a [PathBuf],
    /// The workspace that the program works in, of which `read` has what is shown.
    pub workspace: &'a Path,
    /// Where the program starts.
    pub cwd: &'a Path,
    /// The root folder of the system that it sees; this one's own if `None`.
    pub system: Option<&'a Path>,
    /// Run it without a closed room where the kernel offers none.
    pub unconfined: bool,
}

/// This program again, with `arguments`, in a closed room: it reads the toolchain of `build`, the
/// downloads of its store and what the room is furnished with.
///
/// # Errors
/// The kernel offers no such room, and the user did not say that it may run without one.
pub fn command(build: &Build<'_>, arguments: &[OsString], furniture: &Furniture<'_>) -> Result<Command> {
    let Furniture { store: root, read, put, write, workspace, cwd, system, unconfined } = *furniture;
    // Where the room's own root is put, which nobody outside sees. It belongs to the room's store, and goes with it.
    let at = root.join("room");
    fs_err::create_dir_all(&at)?;
    let me = platform::own_program_in(root)
        .map_err(|e| Error::world("exec", format!("cannot find this program's own file: {e}")))?;
    let home = platform::home_dir().and_then(|h| fs_err::canonicalize(h).ok());
    let mut shown = vec![me.clone()];
    shown.extend(read.iter().cloned());
    // A toolchain of locked packages is made anew in the room.
    let compilers = [("CC", &build.compiler.cc), ("CXX", &build.compiler.cxx)];
    let compilers = if build.compiler.locked.is_some() { &[][..] } else { &compilers };
    for tool in std::iter::once(&build.python.executable).chain(compilers.iter().map(|(_, tool)| *tool)) {
        shown.extend(installation(tool, home.as_deref())?);
    }
    shown.extend(build.cuda_home.as_ref().map(|c| c.root.clone()));
    let mut read: Vec<(PathBuf, PathBuf)> = shown.into_iter().map(|p| (p.clone(), p)).collect();
    read.push((build.store.root().join("blobs"), root.join("v1/blobs")));
    read.extend(put.iter().cloned());
    let mut writable = vec![root.join("v1")];
    writable.extend(write.iter().cloned());
    let system = system.map(Path::to_owned);
    let room = Room { at, read, write: writable, cwd: cwd.to_owned(), system, ..Room::default() };
    let mut command = match platform::room_supported() {
        Ok(()) => {
            let spec = serde_json::to_string(&room).map_err(|e| Error::world("closed-room", e.to_string()))?;
            let mut command = Command::new(&me);
            command.arg(platform::CLOSED_COMMAND).arg(spec).arg(&me);
            command
        }
        Err(why) if unconfined => {
            build.events.warn(format!("it runs without a closed room: {why}"));
            fs_err::create_dir_all(root.join("v1"))?;
            Command::new(&me)
        }
        Err(why) => {
            return Err(Error::world("closed-room", format!("code of others is not run: {why}"))
                .next("run it on a Linux that allows user namespaces (5.12 or later), or in a machine that you can lose: --unconfined"));
        }
    };
    command.args(arguments).env_clear().current_dir(cwd);
    command.env("PATH", "/usr/local/bin:/usr/bin:/bin").env("HOME", "/tmp").env("LC_ALL", "C.UTF-8");
    command.envs(compilers.iter().copied()).env(ROOM_VARIABLE, root);
    command.env(WORKSPACE_VARIABLE, workspace);
    for name in ["NO_COLOR", "TERM", "COLORTERM"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    Ok(command)
}

/// Runs a command of [`command`] to its end, without a terminal: code of others could type into it.
///
/// # Errors
/// It cannot be started; the user stopped it.
pub fn run(mut command: Command) -> Result<ExitStatus> {
    platform::new_session(&mut command);
    let mut child = command.spawn().doing(|| "starting what runs in a closed room".into())?;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if platform::cancelled() {
            platform::kill_tree(child.id(), false);
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    platform::check_cancelled()?;
    Ok(status)
}

/// The folders that `tool` stands in as it was installed, if the room does not have them already.
fn installation(tool: &Path, home: Option<&Path>) -> Result<Vec<PathBuf>> {
    let mut out = Vec::new();
    let real = fs_err::canonicalize(tool)?;
    for path in [tool, real.as_path()] {
        let Some(root) = path.parent().and_then(Path::parent) else { continue };
        if ["/usr", "/bin", "/lib", "/sbin"].iter().any(|s| path.starts_with(s)) || root == Path::new("/") {
            continue;
        }
        // Below ~/.local stands what many programs keep, keyrings among it (XDG Base Directory Specification).
        let folder = fs_err::canonicalize(root)?;
        if home.is_some_and(|home| home.starts_with(&folder) || folder == home.join(".local")) {
            return Err(Error::misuse(
                "closed-room",
                format!(
                    "{} stands in {}: showing it to code of others would show your home folder",
                    tool.display(),
                    root.display()
                ),
            )
            .next("name one that is installed in a folder of its own: --python, CC, CXX"));
        }
        out.push(root.to_owned());
    }
    Ok(out)
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;

    #[test]
    fn a_room_whose_store_leads_elsewhere_is_not_used() {
        for place in ["locks", "locks/store", "quarantine", "stages", "stages/wheel/0123/out", "stages/wheel/0123"] {
            let dir = tempfile::tempdir().unwrap();
            let store = Store::open(Some(dir.path())).unwrap();
            let (root, inner) = room_store(&store, "x").unwrap();
            drop(inner);
            room_store(&store, "x").unwrap();
            let link = root.join("v1").join(place);
            let _ = fs_err::remove_dir_all(&link);
            let _ = fs_err::remove_file(&link);
            fs_err::create_dir_all(link.parent().unwrap()).unwrap();
            std::os::unix::fs::symlink(dir.path(), &link).unwrap();
            let e = room_store(&store, "x").unwrap_err();
            assert!(e.code() == "not-trusted" && e.what().contains(place), "{place}: {e}");
        }
    }

    #[test]
    fn what_a_room_left_in_place_of_what_is_read_is_not_opened_and_has_a_bound() {
        use std::os::unix::net::UnixListener;
        for (place, why) in [
            ("locks/store", "is neither a file nor a folder"),
            ("stages/wheel/0123/stage.json", "is neither a file nor a folder"),
            ("stages/bundle/0123/stage.json", "has more bytes"),
            ("stages/wheel/0123/files.json", "has more bytes"),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let store = Store::open(Some(dir.path())).unwrap();
            let (root, inner) = room_store(&store, "x").unwrap();
            drop(inner);
            let path = root.join("v1").join(place);
            let _ = fs_err::remove_file(&path);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            if why.starts_with("has more") {
                // Of its bytes none is on the disk.
                let size = if place.contains("bundle") { MOST_RECORD + 1 } else { 1 << 40 };
                std::fs::File::create(&path).unwrap().set_len(size).unwrap();
            } else {
                drop(UnixListener::bind(&path).unwrap());
            }
            let e = room_store(&store, "x").unwrap_err();
            assert!(e.code() == "not-trusted" && e.what().contains(place) && e.what().contains(why), "{place}: {e}");
        }
    }

    #[test]
    fn where_nobody_can_tell_what_is_ours_a_recipe_came_from_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let workspace = Workspace { root: dir.path().join("clone") };
        let recipe = dir.path().join("theirs.toml");
        fs_err::write(&recipe, "schema = 1\n").unwrap();
        assert!(is_foreign(&workspace, recipe.to_str().unwrap()));
        // What is not there is refused by name.
        assert!(!is_foreign(&workspace, "theirs"));
    }

    #[test]
    fn a_tool_shows_the_folder_that_it_is_installed_in_and_none_that_is_the_users() {
        let dir = tempfile::tempdir().unwrap();
        let home = fs_err::canonicalize(dir.path()).unwrap();
        let python = home.join(".local/share/pythons/3.11/bin/python3.11");
        let tools = [".local/bin/cc", "bin/cc", "tools/cc", "tools/gcc/bin/cc"].map(|name| home.join(name));
        for tool in tools.iter().chain([&python]) {
            fs_err::create_dir_all(tool.parent().unwrap()).unwrap();
            fs_err::write(tool, "").unwrap();
        }
        let link = home.join(".local/bin/python3");
        std::os::unix::fs::symlink(&python, &link).unwrap();
        let [local, bin, folder, own] = &tools;
        for tool in [local, bin, folder, &link] {
            let e = installation(tool, Some(&home)).unwrap_err();
            assert!(e.what().contains("would show your home folder"), "{}: {e}", tool.display());
        }
        for (tool, root) in [(own, "tools/gcc"), (&python, ".local/share/pythons/3.11")] {
            assert!(installation(tool, Some(&home)).unwrap().iter().all(|shown| *shown == home.join(root)));
        }
    }
}
