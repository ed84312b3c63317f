//! The compiler cache that compiles go through, and how it is told what to do.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Work;
use crate::platform;
use crate::stage::build::{Build, CCACHE};
use crate::stage::environment;
use crate::toolchain::CACHE_VARIABLE;

/// The file of a work folder in which ccache says what became of each compile.
pub const CCACHE_LOG: &str = "ccache.log";

/// The compiler cache that compiles go through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CompilerCache {
    /// Every compile is done anew.
    Off,
    /// ccache: the user's, or the one of the recipe's prefix `ccache`.
    Ccache {
        /// Path of ccache.
        program: PathBuf,
        /// Where its own libraries are, if it brought them along.
        libraries: Option<PathBuf>,
    },
    /// sccache of the build environment.
    Sccache(PathBuf),
}

impl CompilerCache {
    /// Chooses: the user's ccache, else the recipe's if it runs on this machine, else sccache from
    /// the build environment. ccache comes first because it remembers the digests of headers by
    /// inode, where sccache hashes all of an object's headers again for each hit.
    pub fn choose(build: &Build<'_>, buildenv: &Path, prefixes: &BTreeMap<String, PathBuf>) -> Self {
        if build.options.no_compiler_cache {
            return Self::Off;
        }
        if let Some(program) = platform::which("ccache") {
            return Self::Ccache { program, libraries: None };
        }
        if let Some(prefix) = prefixes.get(CCACHE) {
            let program = prefix.join("usr/bin/ccache");
            let libraries = prefix.join("usr/lib/x86_64-linux-gnu");
            let runs = std::process::Command::new(&program)
                .arg("--version")
                .env("LD_LIBRARY_PATH", &libraries)
                .output()
                .is_ok_and(|o| o.status.success());
            if runs {
                return Self::Ccache { program, libraries: Some(libraries) };
            }
        }
        let sccache = environment::tool(buildenv, "sccache");
        if sccache.is_file() { Self::Sccache(sccache) } else { Self::Off }
    }

    /// The program, for commands that can be given a launcher. ccache with libraries of its own needs
    /// them in the environment.
    pub fn program(&self) -> Option<&Path> {
        match self {
            Self::Off => None,
            Self::Ccache { program, .. } | Self::Sccache(program) => Some(program),
        }
    }

    /// Name for people and records.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Ccache { .. } => "ccache",
            Self::Sccache(_) => "sccache",
        }
    }

    /// Ends what waits for more compiles; what does not answer ends by itself within the hour.
    pub fn end(&self, work: &Work) {
        if let Self::Sccache(program) = self {
            let mut command = std::process::Command::new(program);
            let quiet = command.arg("--stop-server").env("SCCACHE_SERVER_UDS", work.socket());
            quiet.stdin(std::process::Stdio::null()).output().ok();
        }
    }

    /// The environment that makes the launcher use it, with its data in the store.
    pub fn env(&self, build: &Build<'_>, work: &Work) -> Vec<(String, String)> {
        let dir = build.store.cache(self.name()).display().to_string();
        let pair = |k: &str, v: String| (k.to_owned(), v);
        match self {
            Self::Off => Vec::new(),
            Self::Ccache { program, libraries } => {
                let mut env = vec![
                    pair(CACHE_VARIABLE, program.display().to_string()),
                    pair("CCACHE_DIR", dir),
                    pair("CCACHE_CONFIGPATH", "/dev/null".into()),
                    pair("CCACHE_MAXSIZE", "10G".into()),
                    // The launcher makes all paths relative, so the folder says nothing.
                    pair("CCACHE_NOHASHDIR", "1".into()),
                    pair("CCACHE_COMPILERCHECK", "content".into()),
                    // What was included is taken from the compiler's own dependency file: on a miss
                    // the preprocessor does not run by itself before the compiler runs it again.
                    pair("CCACHE_DEPEND", "1".into()),
                    // A header of torch is read by a thousand compiles: it is hashed by one, and known again by inode,
                    // size and times (not if these are of the last two seconds).
                    pair("CCACHE_INODECACHE", "1".into()),
                    pair("CCACHE_TEMPDIR", work.dir.join("tmp").display().to_string()),
                    // What became of each compile: what a build is told of where its objects came from.
                    pair("CCACHE_STATSLOG", work.dir.join(CCACHE_LOG).display().to_string()),
                ];
                if let Some(libraries) = libraries {
                    env.push(pair("LD_LIBRARY_PATH", libraries.display().to_string()));
                }
                env
            }
            Self::Sccache(program) => vec![
                pair(CACHE_VARIABLE, program.display().to_string()),
                pair("SCCACHE_DIR", dir),
                pair("SCCACHE_CACHE_SIZE", "10G".into()),
                pair("SCCACHE_DIRECT", "true".into()),
                // Its server counts from the last answer, not from the last question: a lone object of ten minutes must
                // not find it gone. `end` ends it.
                pair("SCCACHE_IDLE_TIMEOUT", "3600".into()),
                pair("SCCACHE_SERVER_UDS", work.socket().display().to_string()),
                // Its server says that it is up on another socket, below the temporary folder.
                pair("TMPDIR", work.socket().parent().unwrap_or(&work.dir).display().to_string()),
            ],
        }
    }
}
