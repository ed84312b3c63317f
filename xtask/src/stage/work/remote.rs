//! Connects a build to the compiler cache that machines share: a door in the work folder that ccache is told of, and
//! what ccache says of each compile.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Work;
use super::cache::CompilerCache;
use crate::error::Result;
use crate::event::Sink;
use crate::platform::Door;
use crate::stage::shared::{Refused, Shared, Tally, serve, signed::Trust};
use crate::store::{KeyBuilder, read_if_there, remove_if_there};

/// What a ccache calls it that it can ask a socket.
const FEATURE: &str = "redis+unix-storage";
/// How long ccache waits for an answer, in milliseconds: longer than this program waits for the server.
const CCACHE_PATIENCE: u32 = 60_000;
/// The file of a work folder in which ccache says what became of each compile that could read from a shared cache.
pub const SHARED_LOG: &str = "ccache.shared.log";
/// The file in the folder of a shared cache with the digests of the objects that this machine compiled into it.
const OWN: &str = "own-objects";

/// A cache that a build is connected to, until this goes.
pub struct Connected {
    /// What ccache has to know.
    pub env: Vec<(String, String)>,
    /// Which entries are not read any more.
    pub refused: Arc<Refused>,
    _door: Door,
    tally: Arc<Tally>,
    shown: String,
}

/// Whether a ccache can ask a socket for entries.
fn speaks(program: &Path, libraries: Option<&Path>) -> bool {
    let mut command = std::process::Command::new(program);
    command.arg("--version");
    if let Some(libraries) = libraries {
        command.env("LD_LIBRARY_PATH", libraries);
    }
    command.output().is_ok_and(|out| {
        let text = String::from_utf8_lossy(&out.stdout);
        text.lines().any(|line| line.starts_with("Features:") && line.split_whitespace().any(|word| word == FEATURE))
    })
}

/// The folder for what ccache keeps beside a shared cache that is read, in place of `cache`: what came from other
/// machines never stands among what this one compiled. What was read on somebody's word is not used once that word does
/// not count any more.
pub fn folder(cache: &Path, shared: &Shared) -> Option<PathBuf> {
    let name = KeyBuilder::new("shared-cache", 2)
        .text("url", &shared.storage.shown())
        .text("trust", &shared.trust.shown())
        .finish();
    (shared.trust != Trust::Nobody).then(|| cache.with_file_name(format!("{FOLDERS}{}", name.short())))
}

/// How the folders of all shared caches are called that stand beside `cache`.
pub const FOLDERS: &str = "shared-";

/// Connects the build in `work` to `shared`, whose entries ccache keeps in `folder`, if it keeps them apart; `None`, with
/// a warning, if that cannot be.
pub fn connect(
    shared: &Arc<Shared>,
    work: &Work,
    cache: &CompilerCache,
    folder: Option<&Path>,
    events: &dyn Sink,
) -> Option<Connected> {
    let shown = shared.storage.shown();
    let without = |why: &str| {
        events.warn(format!("the shared cache {shown} is not used: {why}; the build goes on without it"));
        None
    };
    let CompilerCache::Ccache { program, libraries } = cache else {
        return without(&format!("it is ccache's, and this build's compiler cache is {}", cache.name()));
    };
    // A ccache that does not know the address of a storage compiles nothing at all.
    if !speaks(program, libraries.as_deref()) {
        return without(&format!(
            "{} does not name {FEATURE} among its features, as ccache 4.7.5 does",
            program.display()
        ));
    }
    if let Some(said) = shared.storage.exposes() {
        events.warn(said);
    }
    if let Err(e) = shared.storage.look() {
        return without(&e.to_string());
    }
    let tally = Arc::new(Tally::default());
    let refused = match folder.map(Refused::beside).transpose() {
        Ok(refused) => Arc::new(refused.unwrap_or_default()),
        Err(e) => return without(&e.to_string()),
    };
    let socket = work.socket().with_extension("cache");
    let (to, counted, not_read) = (Arc::clone(shared), Arc::clone(&tally), Arc::clone(&refused));
    let door = match Door::open(&socket, move |visitor| serve(visitor, &to, &counted, &not_read)) {
        Ok(door) => door,
        Err(e) => return without(&format!("{}: {e}", socket.display())),
    };
    let pair = |name: &str, value: String| (name.to_owned(), value);
    let remote = format!("redis+unix:{}|operation-timeout={CCACHE_PATIENCE}", socket.display());
    let mut env = vec![pair("CCACHE_REMOTE_STORAGE", remote)];
    if shared.secret.is_none() || shared.trust == Trust::Nobody {
        // What this machine had already, others have not. What came from others would be signed anew, as ours.
        env.push(pair("CCACHE_RESHARE", "1".into()));
    }
    if let Some(folder) = folder {
        // The last one of a name counts.
        env.push(pair("CCACHE_DIR", folder.display().to_string()));
        env.push(pair("CCACHE_STATSLOG", work.dir.join(SHARED_LOG).display().to_string()));
    }
    Some(Connected { env, refused, _door: door, tally, shown })
}

impl Connected {
    /// How often the cache failed.
    pub fn failed(&self) -> u64 {
        self.tally.failed()
    }

    /// Tells what came of it.
    pub fn tell(&self, events: &dyn Sink) {
        self.tally.tell(&self.shown, events);
    }
}

/// Of the sources that were compiled in `work` where entries of a shared cache could be read, as ccache was given them:
/// whether ccache had an object of one. It keeps what it reads from a shared cache, so one of its own folder may be of
/// another machine as well.
///
/// # Errors
/// The world: ccache's log is there and cannot be read.
pub fn compiled(work: &Work) -> Result<BTreeMap<String, bool>> {
    let text = read_if_there(&work.dir.join(SHARED_LOG))?.unwrap_or_default();
    Ok(parse(&String::from_utf8_lossy(&text)))
}

/// Forgets what came from a shared cache in `work`.
///
/// # Errors
/// The world: ccache's log cannot be removed.
pub fn forget(work: &Work) -> Result<()> {
    remove_if_there(&work.dir.join(SHARED_LOG))
}

/// The digests of the objects that this machine compiled into `folder`.
pub fn own(folder: &Path) -> BTreeSet<String> {
    let text = std::fs::read_to_string(folder.join(OWN)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// Adds to them. What is not noted is taken for another machine's.
pub fn note_own(folder: &Path, known: &BTreeSet<String>, digests: impl IntoIterator<Item = String>) {
    let all: BTreeSet<String> = known.iter().cloned().chain(digests).collect();
    if all.len() > known.len() {
        let text: String = all.into_iter().map(|digest| digest + "\n").collect();
        let _ = crate::store::write_atomically(&folder.join(OWN), text.as_bytes());
    }
}

/// Reads ccache's log of statistics: a line `# SOURCE`, and its counters after it. A source that it had once is one that
/// it had: it may be compiled twice, for two objects.
fn parse(text: &str) -> BTreeMap<String, bool> {
    let mut out = BTreeMap::new();
    let mut source = None;
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("# ") {
            source = Some(name);
            out.entry(name.to_owned()).or_insert(false);
        } else if line == "remote_storage_hit" || line == "local_storage_hit" {
            out.extend(source.map(|name| (name.to_owned(), true)));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_ccache_that_knows_no_sockets_is_not_told_of_one() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("ccache");
        let says = |features: &str| {
            std::fs::write(&program, format!("#!/bin/sh\necho 'ccache version 4'\necho 'Features: {features}'\n"))
                .unwrap();
            std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
            speaks(&program, None)
        };
        assert!(says("file-storage redis+unix-storage redis-storage"));
        assert!(!says("file-storage redis-storage"));
        assert!(!speaks(&dir.path().join("none"), None));
    }

    #[test]
    fn a_source_whose_object_ccache_had_in_any_of_its_compiles_is_one_that_it_had() {
        let text = "# ../a.cpp\ncache_miss\nremote_storage_read_miss\n# ../b.cpp\nremote_storage_hit\n\
                    # ../a.cpp\nremote_storage_hit\n# ../b.cpp\ncache_miss\n# ../c.cpp\nlocal_storage_hit\n\
                    # ../d.cpp\ncache_miss\n";
        let had = |name: &str| parse(text)[name];
        assert_eq!(["../a.cpp", "../b.cpp", "../c.cpp", "../d.cpp"].map(had), [true, true, true, false]);
    }

    #[test]
    fn what_was_compiled_here_is_known_again_and_another_trust_has_another_folder() {
        let dir = tempfile::tempdir().unwrap();
        note_own(dir.path(), &own(dir.path()), ["b".to_owned()]);
        note_own(dir.path(), &own(dir.path()), ["a".to_owned()]);
        assert_eq!(own(dir.path()).into_iter().collect::<Vec<_>>(), ["a", "b"]);
        let shared = |trust| Shared {
            storage: crate::stage::shared::storage::Storage::Folder("/x".into()),
            trust,
            secret: None,
        };
        let key = ed25519_dalek::SigningKey::from_bytes(&[7; 32]).verifying_key();
        let store = crate::store::Store::open(Some(&dir.path().join("store"))).unwrap();
        let cache = store.cache("ccache");
        let (any, keys) = (folder(&cache, &shared(Trust::Unsigned)), folder(&cache, &shared(Trust::Keys(vec![key]))));
        assert!(any.is_some() && keys.is_some() && any != keys);
        assert_eq!(folder(&cache, &shared(Trust::Nobody)), None);
        std::fs::create_dir_all(any.as_ref().unwrap()).unwrap();
        assert_eq!(store.caches(FOLDERS), [any.unwrap()]);
    }
}
