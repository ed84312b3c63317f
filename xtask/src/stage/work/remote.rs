//! Connects a build to the compiler cache that machines share: a door in the work folder that ccache is told of, and
//! what ccache says of each compile.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Work;
use super::cache::CompilerCache;
use crate::event::Sink;
use crate::platform::Door;
use crate::stage::shared::{Shared, Tally, serve, signed::Trust};
use crate::store::KeyBuilder;

/// How long ccache waits for an answer, in milliseconds: longer than this program waits for the server.
const CCACHE_PATIENCE: u32 = 60_000;
/// The file of a work folder in which ccache says what became of each compile.
const LOG: &str = "ccache.log";

/// A cache that a build is connected to, until this goes.
pub struct Connected {
    /// What ccache has to know.
    pub env: Vec<(String, String)>,
    _door: Door,
    tally: Arc<Tally>,
    shown: String,
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
    if !matches!(cache, CompilerCache::Ccache { .. }) {
        return without(&format!("it is ccache's, and this build's compiler cache is {}", cache.name()));
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
        pair("CCACHE_STATSLOG", work.dir.join(LOG).display().to_string()),
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
    parse_hits(&std::fs::read_to_string(work.dir.join(LOG)).unwrap_or_default())
}

/// Forgets what came from the shared cache in `work`.
pub fn forget(work: &Work) {
    let _ = std::fs::remove_file(work.dir.join(LOG));
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

    #[test]
    fn of_several_compiles_of_a_source_the_last_one_says_where_its_object_came_from() {
        let text = "# ../a.cpp\ncache_miss\nremote_storage_read_miss\n# ../b.cpp\nremote_storage_hit\n\
                    # ../a.cpp\nremote_storage_hit\n# ../b.cpp\nlocal_storage_hit\n";
        assert_eq!(parse_hits(text).into_iter().collect::<Vec<_>>(), ["../a.cpp"]);
    }
}
