//! peers: the store's program as server and as clients, of one build or of several, against each other.
//! How the protocol is tried between processes, and between Linux and Windows.

use std::io::{BufRead, BufReader, Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rayon::prelude::*;
use serde::Serialize;

use crate::error::{Context, Error, Result};
use crate::toolchain::Process;
use crate::toolchain::mingw::{Turn, Wine};

/// Clients of one process.
const CLIENTS: u32 = 16;
/// Times that each stores, reads and counts.
const ROUNDS: u32 = 50;

/// The program `uvstore`, and how it is run.
#[derive(Debug, Clone)]
pub struct Peer {
    /// For people: `linux`, `windows`.
    pub name: String,
    argv: Vec<PathBuf>,
    wine: Option<Wine>,
}

/// One server and who came to it.
#[derive(Debug, Clone, Serialize)]
pub struct Meeting {
    /// Where the server ran.
    pub server: String,
    /// Where the client processes ran, of 16 clients each.
    pub clients: Vec<String>,
    /// Whether one more client process was killed in the middle.
    pub one_killed: bool,
    /// Sets, gets and adds that were tried.
    pub operations: u64,
    /// What client processes printed that the store served wrong.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub wrong: Vec<String>,
    /// Wall time in seconds.
    pub seconds: f64,
}

impl Peer {
    /// A program of this machine.
    #[must_use]
    pub fn here(program: &Path) -> Self {
        Self { name: std::env::consts::OS.into(), argv: vec![program.to_owned()], wine: None }
    }

    /// A Windows program, run by Wine.
    #[must_use]
    pub fn in_wine(program: &Path, wine: &Wine) -> Self {
        Self {
            name: "windows".into(),
            argv: vec![wine.program().to_owned(), program.to_owned()],
            wine: Some(wine.clone()),
        }
    }

    /// Waits for its turn, if it runs in Wine. With what comes back ends what its processes left running.
    ///
    /// # Errors
    /// As [`Wine::turn`].
    pub fn turn(&self) -> Result<Option<Turn<'_>>> {
        self.wine.as_ref().map(Wine::turn).transpose()
    }

    fn env(&self) -> Vec<(String, String)> {
        self.wine.as_ref().map(Wine::env).unwrap_or_default()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.argv[0]);
        command.args(&self.argv[1..]).envs(self.env()).stdin(Stdio::null());
        command
    }

    /// Clients that try every operation of the server at `port`; what they printed.
    fn clients(&self, port: u16, first: usize) -> Result<serde_json::Value> {
        let numbers = [u32::from(port), CLIENTS, ROUNDS].map(|n| n.to_string());
        let said = Process::new(&self.argv[0])
            .args(&self.argv[1..])
            .args(["check", "--port", &numbers[0], "--clients", &numbers[1], "--rounds", &numbers[2]])
            .args(["--first", &first.to_string()])
            .envs(self.env())
            .with_network()
            .timeout(Duration::from_secs(180))
            .check("uvstore", None)
            .doing(|| format!("trying the store with clients on {}", self.name))?;
        said.last_json().ok_or_else(|| Error::world("uvstore", "uvstore check printed nothing"))
    }

    /// Two processes with many clients each, on one server of this program: what one of them printed.
    ///
    /// # Errors
    /// The program does not serve, or serves wrong.
    pub fn check_itself(&self) -> Result<serde_json::Value> {
        let server = Server::start(self)?;
        let (a, b) = rayon::join(|| self.clients(server.port, 0), || self.clients(server.port, 1000));
        a?;
        b
    }

    /// A server of this program, and a process of each of `clients` at one time. With `kill_one`, one more
    /// client process is killed while they are at it.
    ///
    /// # Errors
    /// A process cannot be started, or did not end well.
    pub fn serve(&self, clients: &[&Self], kill_one: bool) -> Result<Meeting> {
        let started = Instant::now();
        let server = Server::start(self)?;
        let victim = if kill_one {
            let mut command = clients.first().unwrap_or(&self).command();
            command.args(["check", "--port", &server.port.to_string(), "--rounds", "1000000", "--first", "900000"]);
            command.stdout(Stdio::null()).stderr(Stdio::null());
            let child = command.spawn().doing(|| "starting a client process".into())?;
            std::thread::sleep(Duration::from_millis(1500));
            Some(Ended(child))
        } else {
            None
        };
        let said = std::thread::scope(|scope| {
            if let Some(victim) = victim {
                // In the middle of its own work and of the others'.
                scope.spawn(|| {
                    std::thread::sleep(Duration::from_millis(300));
                    drop(victim);
                });
            }
            let processes = clients.par_iter().enumerate();
            processes.map(|(i, peer)| peer.clients(server.port, 1000 * (i + 1))).collect::<Result<Vec<_>>>()
        })?;
        Ok(Meeting {
            server: self.name.clone(),
            clients: clients.iter().map(|p| p.name.clone()).collect(),
            one_killed: kill_one,
            // set, get, add, add of each client in each round
            operations: clients.len() as u64 * u64::from(CLIENTS) * u64::from(ROUNDS) * 4,
            wrong: said.iter().filter(|s| s["ok"] != true).map(ToString::to_string).collect(),
            seconds: started.elapsed().as_secs_f64(),
        })
    }
}

/// A process that ends with this value.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server that ends with this value.
struct Server {
    _child: Ended,
    port: u16,
}

impl Server {
    fn start(peer: &Peer) -> Result<Self> {
        // A file, not our own: Wine's services would hold that open.
        let mut said_wrong = tempfile::tempfile()?;
        let mut child = peer
            .command()
            .args(["serve", "--port", "0"])
            .stdout(Stdio::piped())
            .stderr(said_wrong.try_clone()?)
            .spawn()
            .doing(|| format!("starting a server on {}", peer.name))?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let said: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
        let port = said["port"].as_u64().and_then(|p| u16::try_from(p).ok());
        let mut child = Ended(child);
        match port {
            Some(port) if said["libuv"] == true => Ok(Self { _child: child, port }),
            _ => {
                let _ = child.0.kill();
                let status = child.0.wait()?;
                let mut errors = String::new();
                said_wrong.rewind()?;
                said_wrong.read_to_string(&mut errors)?;
                Err(Error::world(
                    "uvstore",
                    format!(
                        "uvstore did not begin to serve: it said '{}' ({status})\n{}",
                        line.trim(),
                        errors.trim_end()
                    ),
                ))
            }
        }
    }
}
