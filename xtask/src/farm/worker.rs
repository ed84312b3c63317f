//! A worker: compiles what clients send, with the compiler that they send, in a sandbox of bubblewrap's without network.
//! Whoever has the client's token runs programs there, and nobody else does.

use std::ffi::OsString;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};

use super::{is_token, own_folder, secret_file};
use crate::error::{Error, Result};
use crate::platform::{self, toml_text};
use crate::stage::farm::scheduler_url;
use crate::toolchain::farm::MEMORY_PER_PLACE;

/// The oldest bubblewrap that the engine takes.
const BUBBLEWRAP: (u32, u32) = (0, 3);

/// A worker that can be started.
#[derive(Debug)]
pub struct Worker {
    /// Its folder: compilers that were sent, and the roots in which they run.
    pub state: PathBuf,
    /// Where clients and the scheduler reach it.
    pub address: SocketAddrV4,
    /// Its scheduler.
    pub scheduler: String,
    /// The file with its token.
    pub token: PathBuf,
    /// Compiles at a time; by cores and memory if `None`.
    pub jobs: Option<usize>,
    /// bubblewrap; that on `PATH` if `None`.
    pub bubblewrap: Option<PathBuf>,
}

impl Worker {
    /// Compiles at a time: what admission by memory is on a worker. The engine asks how many cores it may use, and tells
    /// its scheduler of them.
    pub fn jobs(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let memory = platform::available_memory().map_or(u64::MAX, |bytes| bytes >> 20);
        let by_memory = usize::try_from(memory / MEMORY_PER_PLACE).unwrap_or(usize::MAX);
        self.jobs.unwrap_or(cores).min(cores).min(by_memory).max(1)
    }

    /// Becomes the worker. Returns only on failure.
    ///
    /// # Errors
    /// Misuse: it would not be root, or its token cannot be read. The world: there is no engine or no bubblewrap.
    pub fn run(&self) -> Result<()> {
        if !platform::is_root() {
            return Err(Error::misuse(
                "farm-root",
                "a worker has to be root: it mounts a root of its own for every compile",
            )
            .next("run it as root, on a machine or in a container that has no other purpose"));
        }
        let scheduler = scheduler_url(&self.scheduler, "--scheduler")?;
        let bubblewrap = self.bubblewrap()?;
        let token = self.token()?;
        own_folder(&self.state, None)?;
        let state = std::path::absolute(&self.state)?;
        // The engine keeps a compiler of which it got one half, and then nothing compiles by it: it begins without any.
        for folder in ["toolchains", "build"] {
            let folder = state.join(folder);
            if folder.exists() {
                crate::store::remove_tree(&folder)?;
            }
        }
        let text = |path: &Path| toml_text(&path.display().to_string());
        let configuration = state.join("worker.toml");
        secret_file(
            &configuration,
            &format!(
                "public_addr = \"{}\"\nscheduler_url = {}\ncache_dir = {}\ntoolchain_cache_size = 10737418240\n\n\
                 [builder]\ntype = \"overlay\"\nbuild_dir = {}\nbwrap_path = {}\n\n\
                 [scheduler_auth]\ntype = \"jwt_token\"\ntoken = {}\n",
                self.address,
                toml_text(scheduler.as_str()),
                text(&state.join("toolchains")),
                text(&state.join("build")),
                text(&bubblewrap),
                toml_text(&token)
            ),
        )?;
        platform::use_cores(self.jobs());
        let argv: Vec<OsString> =
            vec![super::engine()?.into(), "server".into(), "--config".into(), configuration.into()];
        let path = std::env::var_os("PATH").unwrap_or_default();
        let env = [("SCCACHE_NO_DAEMON", "1".into()), ("SCCACHE_LOG", "info".into()), ("PATH", path)];
        Err(platform::exec_as(&argv, &env, None))
    }

    /// Its token: one word in a file.
    fn token(&self) -> Result<String> {
        let bad = |what: String| {
            Error::misuse("farm-token", what).next(format!(
                "on the scheduler's machine: cargo xtask farm token --state DIR --worker {} > worker.token",
                self.address
            ))
        };
        let shown = self.token.display();
        let text = platform::read_text(&self.token, platform::MOST_TEXT)
            .map_err(|e| bad(format!("the token of this worker cannot be read from {shown}: {e}")))?;
        let token = text.trim();
        if is_token(token) { Ok(token.to_owned()) } else { Err(bad(format!("{shown} holds no token of a worker"))) }
    }

    /// A bubblewrap that isolates: without it, what clients send would run as root.
    fn bubblewrap(&self) -> Result<PathBuf> {
        let missing = || {
            Error::world("no-bubblewrap", "there is no bubblewrap (bwrap) here, which isolates what clients send")
                .next("apt-get install bubblewrap, or dnf install bubblewrap")
        };
        let found = self.bubblewrap.clone().or_else(|| platform::which("bwrap")).ok_or_else(missing)?;
        let found = std::path::absolute(found)?;
        let said = version(&found).ok_or_else(missing)?;
        if said < BUBBLEWRAP {
            return Err(Error::world(
                "old-bubblewrap",
                format!(
                    "{} is {}.{}; a worker needs {}.{}",
                    found.display(),
                    said.0,
                    said.1,
                    BUBBLEWRAP.0,
                    BUBBLEWRAP.1
                ),
            ));
        }
        Ok(found)
    }
}

/// The version that a bubblewrap gives itself.
fn version(program: &Path) -> Option<(u32, u32)> {
    let out = std::process::Command::new(program).arg("--version").output().ok()?;
    parse_version(&String::from_utf8_lossy(&out.stdout))
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.trim().strip_prefix("bubblewrap ")?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bubblewrap_says_its_version() {
        assert_eq!(parse_version("bubblewrap 0.8.0\n"), Some((0, 8)));
        assert!(parse_version("bubblewrap 0.2.1") < Some(BUBBLEWRAP));
        assert_eq!(parse_version("something else"), None);
    }

    fn worker(token: &Path) -> Worker {
        Worker {
            state: "s".into(),
            address: "10.0.0.2:10501".parse().unwrap(),
            scheduler: "http://10.0.0.1:10600".into(),
            token: token.to_owned(),
            jobs: Some(100_000),
            bubblewrap: None,
        }
    }

    #[test]
    fn a_file_without_a_token_is_told_before_a_worker_starts() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("worker.token");
        // What a command that made no token leaves behind its `>`, and what its error is.
        for text in ["", "\n", "error: farm is no folder of a scheduler"] {
            std::fs::write(&file, text).unwrap();
            let e = worker(&file).token().unwrap_err();
            assert!(e.what().ends_with("worker.token holds no token of a worker"), "{e}");
            assert!(e.next_steps()[0].contains("farm token --state DIR --worker 10.0.0.2:10501"), "{e}");
        }
        std::fs::write(&file, "eyJ0eXAi.eyJz_-.x\n").unwrap();
        assert_eq!(worker(&file).token().unwrap(), "eyJ0eXAi.eyJz_-.x");
        assert!(worker(&dir.path().join("none")).token().unwrap_err().what().contains("cannot be read from "));
    }

    #[test]
    fn a_worker_has_no_more_jobs_than_cores() {
        let worker = worker(Path::new("t"));
        let cores = std::thread::available_parallelism().unwrap().get();
        assert!((1..=cores).contains(&worker.jobs()));
        assert_eq!(Worker { jobs: Some(1), ..worker }.jobs(), 1);
    }
}
