//! The scheduler: which worker compiles what. It runs no code of others, and needs no privilege.

use std::ffi::{OsStr, OsString};
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};

use super::{asked, check_address, is_token, own_folder, secret_file};
use crate::error::{Error, Result};
use crate::platform::{self, toml_text};

/// What whoever compiles on the farm has to know.
const CLIENT_TOKEN: &str = "client.token";
/// What the tokens of workers are made with.
const WORKER_KEY: &str = "worker.key";
/// The engine's configuration.
const CONFIGURATION: &str = "scheduler.toml";

/// A scheduler that can be started.
#[derive(Debug)]
pub struct Scheduler {
    /// Its folder.
    pub state: PathBuf,
    /// Where it listens.
    pub listen: SocketAddrV4,
}

impl Scheduler {
    /// Makes its keys, if it has none yet, and writes its configuration.
    fn prepare(&self, user: Option<u32>) -> Result<()> {
        own_folder(&self.state, user)?;
        for (file, what) in [(CLIENT_TOKEN, "generate-shared-token"), (WORKER_KEY, "generate-jwt-hs256-key")] {
            let path = self.state.join(file);
            if !path.exists() {
                secret_file(&path, &format!("{}\n", asked(&[OsStr::new("auth"), OsStr::new(what)])?))?;
            }
        }
        let (client, worker) = (self.secret(CLIENT_TOKEN)?, self.secret(WORKER_KEY)?);
        secret_file(
            &self.state.join(CONFIGURATION),
            &format!(
                "public_addr = \"{}\"\n\n[client_auth]\ntype = \"token\"\ntoken = {}\n\n\
                 [server_auth]\ntype = \"jwt_hs256\"\nsecret_key = {}\n",
                self.listen,
                toml_text(&client),
                toml_text(&worker)
            ),
        )
    }

    /// A secret of its folder. One that is empty would let in whoever asks.
    fn secret(&self, file: &str) -> Result<String> {
        let path = self.state.join(file);
        let secret = fs_err::read_to_string(&path)?.trim().to_owned();
        if is_token(&secret) {
            return Ok(secret);
        }
        Err(Error::misuse("farm-state", format!("{} holds no secret, or more than one word", path.display()))
            .next("remove it: the scheduler makes a new one when it is started, and those who had the old one need it"))
    }

    /// Where the token for clients is.
    pub fn client_token(&self) -> PathBuf {
        self.state.join(CLIENT_TOKEN)
    }

    /// Makes its keys, if it has none yet, and becomes the scheduler: as `user`, who is not root. `ready` hears of it
    /// before that. Returns only on failure.
    ///
    /// # Errors
    /// Misuse: it would be root; others write to its folder. The world: there is no engine; the folder cannot be
    /// written.
    pub fn run(&self, user: Option<&str>, ready: impl FnOnce(&Self)) -> Result<()> {
        let user = unprivileged(user)?;
        self.prepare(user.map(|(user, _)| user))?;
        ready(self);
        if let Some((user, _)) = user {
            platform::change_owner(&self.state, user)?;
        }
        let argv: Vec<OsString> = vec![
            super::engine()?.into(),
            "scheduler".into(),
            "--config".into(),
            std::path::absolute(self.state.join(CONFIGURATION))?.into(),
        ];
        Err(platform::exec_as(&argv, &[("SCCACHE_NO_DAEMON", "1".into()), ("SCCACHE_LOG", "info".into())], user))
    }
}

/// The token with which the worker at `address` tells a scheduler of itself: it is of use for that address alone.
///
/// # Errors
/// Misuse: `state` is no scheduler's folder, or nobody can be reached at `address`. The world: there is no engine.
pub fn worker_token(state: &Path, address: SocketAddrV4) -> Result<String> {
    // Whether it may be a public one, the worker asks.
    check_address("--worker", address, true)?;
    let configuration = state.join(CONFIGURATION);
    if !configuration.is_file() {
        return Err(Error::misuse("farm-state", format!("{} is no folder of a scheduler", state.display()))
            .next("cargo xtask farm scheduler --state DIR makes one when it is started"));
    }
    let address = address.to_string();
    asked(&[
        OsStr::new("auth"),
        OsStr::new("generate-jwt-hs256-server-token"),
        OsStr::new("--config"),
        configuration.as_os_str(),
        OsStr::new("--server"),
        OsStr::new(&address),
    ])
}

/// The user and the group that a scheduler runs as, if it is to be another one than this user.
fn unprivileged(name: Option<&str>) -> Result<Option<(u32, u32)>> {
    let Some(name) = name else {
        if platform::is_root() {
            return Err(Error::misuse("farm-root", "a scheduler needs no privilege, and is not run as root")
                .next("run it as a user of its own, or let it become one: --user nobody"));
        }
        return Ok(None);
    };
    if !platform::is_root() {
        return Err(Error::misuse("farm-user", format!("--user {name}: only root can become another user"))
            .next("leave it out: the scheduler runs as you"));
    }
    let unknown = || Error::misuse("farm-user", format!("--user {name}: there is no such user, or it is root"));
    let users = fs_err::read_to_string("/etc/passwd")?;
    let found = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then_some(())?;
        let mut number = || fields.next()?.parse::<u32>().ok();
        let _ = number();
        Some((number()?, number()?))
    });
    found.filter(|(user, group)| *user != 0 && *group != 0).map(Some).ok_or_else(unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_is_empty_lets_nobody_in() {
        let dir = tempfile::tempdir().unwrap();
        let scheduler = Scheduler { state: dir.path().to_owned(), listen: "10.0.0.1:10600".parse().unwrap() };
        for text in ["", " \n", "two words"] {
            std::fs::write(scheduler.client_token(), text).unwrap();
            let e = scheduler.secret(CLIENT_TOKEN).unwrap_err();
            assert!(e.what().contains("client.token holds no secret") && !e.what().contains("two words"), "{e}");
        }
        std::fs::write(scheduler.client_token(), "s3cret\n").unwrap();
        assert_eq!(scheduler.secret(CLIENT_TOKEN).unwrap(), "s3cret");
    }
}
