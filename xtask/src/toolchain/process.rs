//! Running other programs: arguments stay arguments, the environment is an allow-list, the output
//! goes to a log, and Ctrl-C takes the whole process group down.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::error::{Error, Kind, Result};
use crate::{logging, platform};

/// The hidden command that cuts the network off and becomes another program.
pub const SANDBOX_COMMAND: &str = "__sandbox";

/// Names a library that every program is started with (LD_PRELOAD), and what it reads: how
/// `repro` puts a whole build into another world. Nothing else sets them.
pub const VARIATION_VARIABLES: [&str; 3] =
    ["TORCHMILL_VARIATION", "TORCHMILL_VARIATION_SECONDS", "TORCHMILL_VARIATION_HOST"];

/// A program to run, with an environment that is made from nothing and no network unless it is given.
#[derive(Debug, Clone)]
pub struct Process {
    argv: Vec<OsString>,
    env: BTreeMap<OsString, OsString>,
    cwd: Option<PathBuf>,
    network: bool,
    hidden: Vec<PathBuf>,
    timeout: Option<Duration>,
}

/// How a program ended, with what it printed last.
#[derive(Debug)]
pub struct Output {
    /// Its exit status, or the signal that ended it.
    pub status: ExitStatus,
    /// Standard output and standard error, interleaved as they came; at most the last 256 KiB.
    pub text: String,
    /// Wall time from its start to its end.
    pub elapsed: Duration,
}

impl Output {
    /// The last line that is a JSON object: what a program reports after all else that it prints.
    pub fn last_json(&self) -> Option<serde_json::Value> {
        self.text.lines().rev().find_map(|l| serde_json::from_str(l.trim()).ok().filter(serde_json::Value::is_object))
    }
}

impl Process {
    /// A program with an empty environment and no network.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            argv: vec![program.as_ref().to_owned()],
            env: BTreeMap::new(),
            cwd: None,
            network: false,
            hidden: Vec::new(),
            timeout: None,
        }
    }

    /// Adds one argument, which is never split again.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.argv.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.argv.extend(args.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.insert(key.as_ref().to_owned(), value.as_ref().to_owned());
        self
    }

    /// Sets environment variables.
    #[must_use]
    pub fn envs<K: AsRef<OsStr>, V: AsRef<OsStr>>(mut self, vars: impl IntoIterator<Item = (K, V)>) -> Self {
        for (k, v) in vars {
            self.env.insert(k.as_ref().to_owned(), v.as_ref().to_owned());
        }
        self
    }

    /// Sets the folder to run in.
    #[must_use]
    pub fn cwd(mut self, dir: impl Into<PathBuf>) -> Self {
        self.cwd = Some(dir.into());
        self
    }

    /// Leaves the network reachable.
    #[must_use]
    pub fn with_network(mut self) -> Self {
        self.network = true;
        self
    }

    /// Shows these folders of the machine empty to the program and to all that it starts. On a kernel that cannot do
    /// so the program does not start.
    #[must_use]
    pub fn hide(mut self, folders: Vec<PathBuf>) -> Self {
        self.hidden = folders;
        self
    }

    /// Ends the program when it takes longer.
    #[must_use]
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit);
        self
    }

    /// The command line, for people.
    pub fn shown(&self) -> String {
        self.argv
            .iter()
            .map(|a| a.to_string_lossy())
            .map(|a| if a.contains(' ') { format!("'{a}'") } else { a.into_owned() })
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// The command as it is really started: through the sandbox helper, which is this program.
    ///
    /// # Errors
    /// The world: this program's own file is gone.
    pub fn command(&self) -> Result<Command> {
        let me = platform::own_program()
            .map_err(|e| Error::world("exec", format!("cannot find this program's own file: {e}")))?;
        let mut command = Command::new(me);
        command.arg(SANDBOX_COMMAND).arg(if self.network { "network" } else { "no-network" });
        command.arg(std::env::join_paths(&self.hidden).map_err(|e| Error::world("exec", e.to_string()))?);
        command.args(&self.argv);
        command.env_clear().envs(&self.env);
        if let Some(library) = std::env::var_os(VARIATION_VARIABLES[0]) {
            command.env("LD_PRELOAD", library);
            command.envs(VARIATION_VARIABLES.into_iter().filter_map(|v| Some((v, std::env::var_os(v)?))));
        }
        if let Some(dir) = &self.cwd {
            command.current_dir(dir);
        }
        self.tell();
        Ok(command)
    }

    /// Tells the log what is started, and how.
    fn tell(&self) {
        if !tracing::enabled!(target: "command", tracing::Level::INFO) {
            return;
        }
        let words = logging::arguments(self.argv.iter().map(|a| a.to_string_lossy()));
        let folder = self.cwd.as_deref().map_or_else(|| ".".into(), Path::to_string_lossy);
        tracing::info!(target: "command", network = self.network, "{words} (in {folder})");
        for (name, value) in &self.env {
            let (name, value) = (name.to_string_lossy(), value.to_string_lossy());
            tracing::debug!(target: "command", "  {name}={}", logging::value(&name, &value));
        }
    }

    /// Runs it to the end. Each line of output goes to `log` (appended) and to `on_line`.
    ///
    /// # Errors
    /// The world: it cannot be started, or took longer than it may; or it was stopped. A bad exit is none.
    pub fn run(&self, log: Option<&Path>, on_line: &mut dyn FnMut(&str)) -> Result<Output> {
        let mut command = self.command()?;
        platform::isolate(&mut command);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut log = match log {
            Some(path) => {
                if let Some(dir) = path.parent() {
                    fs_err::create_dir_all(dir)?;
                }
                let mut file = fs_err::OpenOptions::new().create(true).append(true).open(path)?;
                writeln!(file, "$ {}", self.shown())?;
                Some(file)
            }
            None => None,
        };
        let started = Instant::now();
        let mut child =
            command.spawn().map_err(|e| Error::world("spawn", format!("cannot run {}: {e}", self.shown())))?;
        let pid = child.id();
        let lines = Arc::new(Mutex::new(Vec::<Vec<u8>>::new()));
        let readers: Vec<_> = [
            child.stdout.take().map(|r| Box::new(r) as Box<dyn Read + Send>),
            child.stderr.take().map(|r| Box::new(r) as Box<dyn Read + Send>),
        ]
        .into_iter()
        .flatten()
        .map(|reader| {
            let lines = Arc::clone(&lines);
            std::thread::spawn(move || {
                let mut reader = BufReader::new(reader);
                let mut line = Vec::new();
                while reader.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                    lines.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(std::mem::take(&mut line));
                }
            })
        })
        .collect();
        let mut text = String::new();
        let mut drain = |text: &mut String| -> Result<()> {
            let taken = std::mem::take(&mut *lines.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
            for line in taken {
                if let Some(log) = &mut log {
                    log.write_all(&line)?;
                }
                let line = String::from_utf8_lossy(&line);
                on_line(line.trim_end_matches(['\n', '\r']));
                text.push_str(&line);
            }
            if text.len() > 512 << 10 {
                let mut cut = text.len() - (256 << 10);
                while !text.is_char_boundary(cut) {
                    cut += 1;
                }
                text.drain(..cut);
            }
            Ok(())
        };
        let mut killed_at: Option<(Instant, bool)> = None;
        let mut timed_out = false;
        let mut pause = Duration::from_millis(1);
        let status = loop {
            drain(&mut text)?;
            if let Some(status) = child.try_wait()? {
                break status;
            }
            timed_out |= self.timeout.is_some_and(|t| started.elapsed() > t);
            if platform::cancelled() || timed_out {
                match killed_at {
                    None => {
                        platform::kill_tree(pid, false);
                        killed_at = Some((Instant::now(), false));
                    }
                    Some((at, false)) if at.elapsed() > Duration::from_secs(5) => {
                        platform::kill_tree(pid, true);
                        killed_at = Some((at, true));
                    }
                    Some(_) => {}
                }
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        };
        // A grandchild may hold the pipe open: it belongs to the group, and the group is done.
        platform::kill_tree(pid, true);
        for reader in readers {
            let _ = reader.join();
        }
        drain(&mut text)?;
        tracing::info!(target: "command", seconds = started.elapsed().as_secs_f64(), "{}: {status}", self.argv[0].to_string_lossy());
        platform::check_cancelled()?;
        if timed_out {
            return Err(Error::world(
                Kind::Timeout.code(),
                format!(
                    "{} did not end within {:?}; its last words:\n{}",
                    self.shown(),
                    self.timeout.unwrap_or_default(),
                    tail(&text, 12)
                ),
            ));
        }
        Ok(Output { status, text, elapsed: started.elapsed() })
    }

    /// Runs it and turns a bad exit into an error with code `code` that shows the last lines.
    ///
    /// # Errors
    /// As [`Process::run`], and a bad exit.
    pub fn check(&self, code: &'static str, log: Option<&Path>) -> Result<Output> {
        let output = self.run(log, &mut |_| {})?;
        if output.status.success() {
            return Ok(output);
        }
        let mut e =
            Error::world(code, format!("{} ended with {}:\n{}", self.shown(), output.status, tail(&output.text, 25)));
        if let Some(log) = log {
            e = e.next(format!("the whole output is in {}", log.display()));
        }
        Err(e)
    }
}

/// The last `n` lines of `text`, indented.
pub fn tail(text: &str, n: usize) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(n)..].iter().map(|l| format!("    {l}")).collect::<Vec<_>>().join("\n")
}
