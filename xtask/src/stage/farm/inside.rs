//! What runs in the farm's room: a forwarder that stands in for the scheduler and for every worker, and the engine's
//! daemon. Every address of the room is its own; what is connected to a worker's is carried to the door.

#[cfg(unix)]
use std::io;
#[cfg(unix)]
use std::path::Path;
use std::path::PathBuf;

use crate::error::{Error, Result};
#[cfg(unix)]
use crate::platform::toml_text;

/// The hidden command under which this program is both.
pub const HELPER_COMMAND: &str = "__farm";

/// What the room's program is told.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Inside {
    /// The engine.
    pub program: PathBuf,
    /// The folder that can be written.
    pub folder: PathBuf,
    /// The socket of the door.
    pub door: PathBuf,
    /// The socket at which the daemon is to listen.
    pub socket: PathBuf,
    /// Where the engine keeps what the farm compiled.
    pub cache: PathBuf,
    /// Cores that the daemon may use here: it preprocesses, and compiles what the farm did not.
    pub cores: usize,
}

/// Stands in for the farm, and runs the engine's daemon to its end.
///
/// # Errors
/// The world: the daemon cannot be started, or ended.
#[cfg(unix)]
pub fn helper(inside: &Inside) -> Result<()> {
    crate::platform::use_cores(inside.cores);
    let scheduler = std::net::TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}/", scheduler.local_addr()?);
    let config = inside.folder.join("sccache.toml");
    fs_err::write(&config, configuration(&url, &inside.folder))?;
    let forwarder = Forwarder { door: inside.door.clone(), listened: std::sync::Arc::default() };
    std::thread::spawn(move || {
        for visitor in scheduler.incoming().flatten() {
            let forwarder = forwarder.clone();
            std::thread::spawn(move || forwarder.ask_scheduler(visitor));
        }
    });
    let status = std::process::Command::new(&inside.program)
        .env("SCCACHE_CONF", &config)
        .env("SCCACHE_DIR", &inside.cache)
        .env("SCCACHE_CACHE_SIZE", "10G")
        // The list of files that a compile read is made anew each time: a worker must not have a say in it.
        .env("SCCACHE_DIRECT", "false")
        .env("SCCACHE_SERVER_UDS", &inside.socket)
        .env("SCCACHE_START_SERVER", "1")
        .env("SCCACHE_NO_DAEMON", "1")
        // It lives as long as the build: an object may take longer than any idle time.
        .env("SCCACHE_IDLE_TIMEOUT", "0")
        .env("SCCACHE_LOG", "sccache=info")
        .env("TMPDIR", inside.folder.join("tmp"))
        // The build's dead ones: the room has no other way out anyway.
        .env_remove("http_proxy")
        .env_remove("https_proxy")
        .status()
        .map_err(|e| Error::world("farm", format!("cannot run {}: {e}", inside.program.display())))?;
    Err(Error::world("farm", format!("{} ended with {status}", inside.program.display())))
}

/// No such rooms here.
///
/// # Errors
/// Always.
#[cfg(not(unix))]
pub fn helper(_inside: &Inside) -> Result<()> {
    Err(Error::world("farm", "this system has no sockets in the file system"))
}

/// The engine's configuration. The token is put in place of this one outside of the room.
#[cfg(unix)]
fn configuration(scheduler: &str, folder: &Path) -> String {
    format!(
        "[dist]\nscheduler_url = {}\ntoolchain_cache_size = 4294967296\ncache_dir = {}\n\n\
         [dist.auth]\ntype = \"token\"\ntoken = \"outside\"\n",
        toml_text(scheduler),
        toml_text(&folder.join("toolchains").display().to_string())
    )
}

#[cfg(unix)]
#[derive(Clone)]
struct Forwarder {
    door: PathBuf,
    /// Ports of workers that are listened at.
    listened: std::sync::Arc<std::sync::Mutex<std::collections::BTreeSet<u16>>>,
}

#[cfg(unix)]
impl Forwarder {
    /// The door, opened for `to`.
    fn ask(&self, to: &str) -> io::Result<std::os::unix::net::UnixStream> {
        use std::io::Write;
        let mut door = std::os::unix::net::UnixStream::connect(&self.door)?;
        door.write_all(format!("{to}\n").as_bytes())?;
        Ok(door)
    }

    /// Carries one request to the scheduler. Of a worker that is named for the first time, the port is listened at
    /// before the engine hears of it.
    fn ask_scheduler(&self, mut visitor: std::net::TcpStream) {
        use super::{door::TO_SCHEDULER, wire};
        use std::io::{Read, Write};
        let carried = || -> io::Result<Vec<u8>> {
            let request = wire::Message::read(&mut visitor, false)?;
            let mut door = self.ask(TO_SCHEDULER)?;
            write!(door, "{}\r\nContent-Length: {}\r\n\r\n", request.first, request.body.len())?;
            door.write_all(&request.body)?;
            let mut answer = Vec::new();
            door.read_to_end(&mut answer)?;
            let said = wire::Message::read(&mut &answer[..], true)?;
            if let Some(Ok(worker)) = wire::place(&said.body) {
                self.listen(worker.port())?;
            }
            Ok(answer)
        };
        let mut carried = carried;
        if let Ok(answer) = carried() {
            let _ = visitor.write_all(&answer);
        }
    }

    fn listen(&self, port: u16) -> io::Result<()> {
        let mut listened = self.listened.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if listened.contains(&port) {
            return Ok(());
        }
        let listener = std::net::TcpListener::bind(("0.0.0.0", port))?;
        listened.insert(port);
        let this = self.clone();
        std::thread::spawn(move || {
            for visitor in listener.incoming().flatten() {
                let this = this.clone();
                std::thread::spawn(move || this.carry(visitor));
            }
        });
        Ok(())
    }

    /// Carries a connection to the worker that it was meant for.
    fn carry(&self, visitor: std::net::TcpStream) -> Option<()> {
        visitor.set_nodelay(true).ok()?;
        let door = self.ask(&visitor.local_addr().ok()?.to_string()).ok()?;
        let (mut from, mut to) = (visitor.try_clone().ok()?, door.try_clone().ok()?);
        let there = std::thread::spawn(move || {
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(std::net::Shutdown::Write);
        });
        let (mut back, mut client) = (door, visitor);
        let _ = io::copy(&mut back, &mut client);
        let _ = client.shutdown(std::net::Shutdown::Both);
        let _ = back.shutdown(std::net::Shutdown::Both);
        there.join().ok()
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn the_room_knows_no_token() {
        let text = configuration("http://127.0.0.1:5/", Path::new("/w/farm"));
        let parsed: toml::Table = toml::from_str(&text).unwrap();
        assert_eq!(parsed["dist"]["auth"]["token"].as_str(), Some("outside"));
        assert_eq!(parsed["dist"]["cache_dir"].as_str(), Some("/w/farm/toolchains"));
    }

    #[test]
    fn a_folder_of_any_name_is_named_to_the_engine() {
        // An accent that stands alone, as other systems write names.
        for folder in ["/home/Rene\u{301}/\"w\"/farm", "/a\\b/'c'", "/a\u{200b}b"] {
            let text = configuration("http://127.0.0.1:5/", Path::new(folder));
            let parsed: toml::Table = toml::from_str(&text).unwrap();
            assert_eq!(parsed["dist"]["cache_dir"].as_str(), Some(&*format!("{folder}/toolchains")), "{text}");
        }
    }
}
