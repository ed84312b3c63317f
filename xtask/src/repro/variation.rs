//! The other variation of the second build: another user, home, host name, time zone, locale, umask,
//! clock, order of folders, number of jobs, path, and no compiler cache.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Context, Error, Result};
use crate::platform;
use crate::toolchain::{Compiler, Process, VARIATION_VARIABLES};

/// What the clock is ahead by: over a year, so that the year differs.
const AHEAD: u64 = 400 * 86_400;

/// The source of the library that makes the variation.
const SOURCE: &str = include_str!("variation.c");

/// A variation and what is different in it.
pub struct Variation {
    /// The library, where the platform can preload one.
    library: Option<PathBuf>,
    /// HOME of the second build, an empty folder.
    home: PathBuf,
    /// The user that the build runs as, where it can be another one.
    user: Option<u32>,
    /// What differs, for people: what → (there, here).
    pub changes: Vec<(String, String)>,
}

impl Variation {
    /// makes a variation whose files stand in `dir`.
    ///
    /// # Errors
    /// If the library cannot be compiled.
    pub fn make(dir: &Path, compiler: &Compiler, python: &Path) -> Result<Self> {
        fs_err::create_dir_all(dir)?;
        platform::make_traversable(dir)?;
        let home = dir.join("home");
        fs_err::create_dir_all(&home)?;
        let mut changes = vec![
            ("HOME".to_owned(), "an empty folder".to_owned()),
            ("time zone".to_owned(), "Asia/Kathmandu".to_owned()),
            ("locale".to_owned(), "tr_TR.UTF-8".to_owned()),
            ("umask".to_owned(), "077".to_owned()),
            ("compiler cache".to_owned(), "off".to_owned()),
        ];
        let library = if cfg!(target_os = "linux") {
            let source = dir.join("variation.c");
            let library = dir.join("variation.so");
            fs_err::write(&source, SOURCE)?;
            let out = Process::new(&compiler.cc)
                .args(["-shared", "-fPIC", "-O2", "-o"])
                .args([&library, &source])
                .arg("-ldl")
                .hide(compiler.hidden())
                .envs(std::env::vars_os())
                .run(None, &mut |_| {})
                .doing(|| "compiling the library that makes another system".into())?;
            if !out.status.success() {
                let what = format!("the library that makes another system does not compile:\n{}", out.text);
                return Err(Error::world("variation", what));
            }
            platform::mark_executable(&library, true)?;
            changes.push(("clock".into(), format!("{} days ahead", AHEAD / 86_400)));
            changes.push(("host name".into(), "elsewhere".into()));
            changes.push(("folders".into(), "listed in reverse".into()));
            Some(library)
        } else {
            None
        };
        let user = platform::other_user(python, dir);
        match user {
            Some(user) => changes.push(("user".into(), format!("uid {user}"))),
            None if platform::is_root() => {
                changes.push(("user".into(), "the same: no other user may run this Python in this folder".into()));
            }
            None => changes.push(("user".into(), "the same: only root can start programs as others".into())),
        }
        Ok(Self { library, home, user, changes })
    }

    /// Hands `dir` over to the user of this variation.
    ///
    /// # Errors
    /// If it cannot be handed over.
    pub fn own(&self, dir: &Path) -> Result<()> {
        match self.user {
            Some(user) => platform::change_owner(dir, user),
            None => Ok(()),
        }
    }

    /// Takes `dir` back from the user of this variation.
    ///
    /// # Errors
    /// If it cannot be taken.
    pub fn give_back(&self, dir: &Path) -> Result<()> {
        match self.user {
            Some(_) => platform::change_owner(dir, platform::this_user()),
            None => Ok(()),
        }
    }

    /// Puts `command` into this variation.
    pub fn enter(&self, command: &mut Command) {
        // What finds mirrors and certificates stays; the rest of the caller's environment does not.
        const KEPT: [&str; 6] = ["PIP_", "SSL_", "CURL_", "REQUESTS_", "GIT_SSL", "CARGO_HTTP"];
        command.env_clear();
        for (name, value) in std::env::vars_os() {
            let text = name.to_string_lossy();
            let proxy = text.to_lowercase().ends_with("_proxy");
            if proxy || text == "PATH" || text == "CC" || text == "CXX" || KEPT.iter().any(|k| text.starts_with(k)) {
                command.env(&name, value);
            }
        }
        command.env("HOME", &self.home).env("TZ", "Asia/Kathmandu").env("LC_ALL", "tr_TR.UTF-8").env("NO_COLOR", "1");
        if let Some(library) = &self.library {
            command.env(VARIATION_VARIABLES[0], library);
            command.env(VARIATION_VARIABLES[1], AHEAD.to_string());
            command.env(VARIATION_VARIABLES[2], "elsewhere");
        }
        platform::enter_variation(command, self.user, 0o077);
    }
}
