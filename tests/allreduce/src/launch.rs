//! Starting ranks on this machine and watching them: one that dies takes the others down at once,
//! one that hangs is found by the time limit, and nobody is left behind.
#![allow(unsafe_code)] // prctl in the child, before exec

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::c10d::{Store, StoreBackend};
use crate::failure::{Failure, Result};
use crate::rank::OWN_PARENT;

/// How ranks are started.
pub struct Launch<'a> {
    /// Number of ranks.
    pub ranks: usize,
    /// Port of the store; 0 for a free one.
    pub port: u16,
    /// Its server.
    pub store: StoreBackend,
    /// Bound on the whole job.
    pub limit: Duration,
    /// Arguments that the ranks are started with: this program's own.
    pub args: &'a [std::ffi::OsString],
}

/// One rank that runs.
struct Rank {
    number: usize,
    child: Child,
    /// Threads that hand on what it prints.
    readers: Vec<JoinHandle<()>>,
    ended: Option<ExitStatus>,
}

/// Has the kernel end the child when this process ends, however it does.
pub fn end_with_parent(command: &mut Command) {
    // SAFETY: prctl is async-signal-safe and takes plain integers.
    #[cfg(target_os = "linux")]
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
            Ok(())
        });
    }
}

/// Starts the ranks, waits for them, and returns what rank 0 wrote on standard output.
pub fn run(launch: &Launch<'_>) -> Result<String> {
    // The parent serves the store, as torchrun's agent does: no race for a free port.
    let store = Store::serve(launch.port, launch.store, launch.limit)?;
    let me = std::env::current_exe()?;
    let mut ranks: Vec<Rank> = Vec::new();
    let (sender, result) = std::sync::mpsc::channel();
    for number in 0..launch.ranks {
        let mut command = Command::new(&me);
        command
            .args(launch.args)
            .env("RANK", number.to_string())
            .env("WORLD_SIZE", launch.ranks.to_string())
            .env("LOCAL_RANK", number.to_string())
            .env("LOCAL_WORLD_SIZE", launch.ranks.to_string())
            .env("MASTER_ADDR", "127.0.0.1")
            .env("MASTER_PORT", store.port().to_string())
            .env(OWN_PARENT, std::process::id().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        end_with_parent(&mut command);
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(e) => {
                end(&mut ranks);
                return Err(Failure::world(format!("rank {number} cannot be started: {e}")));
            }
        };
        let mut readers = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            let sender = sender.clone();
            readers.push(std::thread::spawn(move || {
                if number == 0 {
                    let mut text = String::new();
                    let _ = BufReader::new(stdout).read_to_string(&mut text);
                    let _ = sender.send(text);
                } else {
                    hand_on(number, stdout);
                }
            }));
        }
        if let Some(stderr) = child.stderr.take() {
            readers.push(std::thread::spawn(move || hand_on(number, stderr)));
        }
        ranks.push(Rank { number, child, readers, ended: None });
    }
    drop(sender);
    watch(&mut ranks, launch.limit)?;
    result.recv().map_err(|_| Failure::world("rank 0 printed no result"))
}

/// Waits for all ranks; ends them all when one fails or time is up.
fn watch(ranks: &mut [Rank], limit: Duration) -> Result<()> {
    let started = Instant::now();
    loop {
        for rank in ranks.iter_mut().filter(|r| r.ended.is_none()) {
            rank.ended = rank.child.try_wait()?;
        }
        if let Some((number, status)) =
            ranks.iter().filter_map(|r| Some((r.number, r.ended?))).find(|(_, s)| !s.success())
        {
            return Err(fail(ranks, number, status));
        }
        if ranks.iter().all(|r| r.ended.is_some()) {
            for rank in ranks.iter_mut() {
                rank.readers.drain(..).for_each(|r| drop(r.join()));
            }
            return Ok(());
        }
        if started.elapsed() > limit {
            let hung: Vec<usize> = ranks.iter().filter(|r| r.ended.is_none()).map(|r| r.number).collect();
            stacks(ranks);
            end(ranks);
            return Err(Failure::world(format!(
                "after {} s rank{} {} had not ended (--limit); where each was stands above, if a debugger is there",
                limit.as_secs(),
                if hung.len() == 1 { "" } else { "s" },
                hung.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
            )));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn fail(ranks: &mut [Rank], number: usize, status: ExitStatus) -> Failure {
    end(ranks);
    // A rank that found a wrong sum has said so, and ends with 1.
    if status.code() == Some(1) {
        return Failure::no(format!("rank {number} found wrong results; what it said stands above"));
    }
    if status.code() == Some(2) {
        return Failure::misuse(format!("rank {number} refused; what it said stands above"));
    }
    Failure::world(format!("rank {number} died ({status}); its output stands above, the other ranks were ended"))
}

/// Kills what still runs and collects it.
fn end(ranks: &mut [Rank]) {
    for rank in ranks.iter_mut() {
        if rank.ended.is_none() {
            let _ = rank.child.kill();
            let _ = rank.child.wait();
        }
        rank.readers.drain(..).for_each(|r| drop(r.join()));
    }
}

/// Prints the stacks of all ranks, where a debugger is installed.
fn stacks(ranks: &[Rank]) {
    for rank in ranks.iter().filter(|r| r.ended.is_none()) {
        let pid = rank.child.id().to_string();
        let stack = Command::new("timeout")
            .args(["20", "gdb", "-nx", "-p", &pid, "-batch", "-ex", "thread apply all backtrace 12"])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output();
        let mut err = std::io::stderr().lock();
        match stack {
            Ok(out) if out.status.success() => {
                for line in String::from_utf8_lossy(&out.stdout).lines().filter(|l| l.starts_with(['#', 'T'])) {
                    let _ = writeln!(err, "[rank {}] {line}", rank.number);
                }
            }
            // What the kernel knows without a debugger.
            _ => {
                let wchan = std::fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap_or_default();
                let _ = writeln!(err, "[rank {}] no debugger (gdb) here; the kernel says: {wchan}", rank.number);
            }
        }
    }
}

fn hand_on(number: usize, from: impl Read) {
    for line in BufReader::new(from).lines().map_while(std::result::Result::ok) {
        let _ = writeln!(std::io::stderr().lock(), "[rank {number}] {line}");
    }
}
