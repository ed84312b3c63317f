//! Connects a build to the compiler cache that machines share: a door in the work folder that ccache is told of, and
//! what ccache says of each compile.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Work;
use super::cache::{CCACHE_LOG, CompilerCache};
use crate::event::Sink;
use crate::platform::Door;
use crate::stage::shared::{Shared, Tally, serve, signed::Trust};
use crate::store::KeyBuilder;

/// What a ccache calls it that it can ask a socket.
const FEATURE: &str = "redis+unix-storage";
/// How long ccache waits for an answer, in milliseconds: longer than this program waits for the server.
const CCACHE_PATIENCE: u32 = 60_000;

/// A cache that a build is connected to, until this goes.
pub struct Connected {
    /// What ccache has to know.
    pub env: Vec<(String, String)>,
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
/// machines never stands among what this one compiled.
pub fn folder(cache: &Path, shared: &Shared) -> Option<PathBuf> {
    let name = KeyBuilder::new("shared-cache", 1).text("url", &shared.storage.shown()).finish();
    (shared.trust != Trust::Nobody).then(|| cache.with_file_name(format!("shared-{}", name.short())))
}

/// Connects the build in `work` to `shared`; `None`, with a warning, if that cannot be.
pub fn connect(shared: &Arc<Shared>, work: &Work, cache: &CompilerCache, events: &dyn Sink) -> Option<Connected> {
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
    let socket = work.socket().with_extension("cache");
    let (to, counted) = (Arc::clone(shared), Arc::clone(&tally));
    let door = match Door::open(&socket, move |visitor| serve(visitor, &to, &counted)) {
        Ok(door) => door,
        Err(e) => return without(&format!("{}: {e}", socket.display())),
    };
    let pair = |name: &str, value: String| (name.to_owned(), value);
    let remote = format!("redis+unix:{}|operation-timeout={CCACHE_PATIENCE}", socket.display());
    let env = vec![
        pair("CCACHE_REMOTE_STORAGE", remote),
        // What this machine had already, others have not.
        pair("CCACHE_RESHARE", "1".into()),
    ];
    Some(Connected { env, _door: door, tally, shown })
}

impl Connected {
    /// Tells what came of it.
    pub fn tell(&self, events: &dyn Sink) {
        self.tally.tell(&self.shown, events);
    }
}

/// The sources whose objects came from the shared cache in `work`, as ccache was given them.
pub fn hits(work: &Work) -> BTreeSet<String> {
    parse_hits(&std::fs::read_to_string(work.dir.join(CCACHE_LOG)).unwrap_or_default())
}

/// Forgets what came from the shared cache in `work`.
pub fn forget(work: &Work) {
    let _ = std::fs::remove_file(work.dir.join(CCACHE_LOG));
}

/// Reads ccache's log of statistics: a line `# SOURCE`, and its counters after it. Of several compiles of one source
/// the last one counts.
fn parse_hits(text: &str) -> BTreeSet<String> {
    let mut out = BTreeSet::new();
    let mut source = None;
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("# ") {
            out.remove(name);
            source = Some(name);
        } else if line == "remote_storage_hit" {
            out.extend(source.map(str::to_owned));
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
    fn of_several_compiles_of_a_source_the_last_one_says_where_its_object_came_from() {
        let text = "# ../a.cpp\ncache_miss\nremote_storage_read_miss\n# ../b.cpp\nremote_storage_hit\n\
                    # ../a.cpp\nremote_storage_hit\n# ../b.cpp\nlocal_storage_hit\n";
        assert_eq!(parse_hits(text).into_iter().collect::<Vec<_>>(), ["../a.cpp"]);
    }
}
