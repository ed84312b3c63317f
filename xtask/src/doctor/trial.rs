//! Trying it: a store, and two ranks that meet, in child processes under a time limit.

use std::time::Duration;

use serde::Serialize;

use super::Interpreter;
use crate::error::{Error, Kind, Result};
use crate::toolchain::Process;

/// How long one trial may take: importing torch alone can take many seconds on a cold disk.
const LIMIT: Duration = Duration::from_secs(90);

/// One trial and how it ended.
#[derive(Debug, Clone, Serialize)]
pub struct Trial {
    /// What was tried.
    pub name: &'static str,
    /// Whether it worked.
    pub ok: bool,
    /// Whether the store ran on libuv, where it worked.
    pub libuv: Option<bool>,
    /// The error's last line, where it did not.
    pub error: Option<String>,
    /// Wall time in seconds.
    pub seconds: f64,
}

const STORE: &str = r#"
import json
from datetime import timedelta
import torch.distributed as dist
s = dist.TCPStore("127.0.0.1", 0, None, True, timedelta(seconds=30), wait_for_workers=False)
c = dist.TCPStore("127.0.0.1", s.port, None, False, timedelta(seconds=30))
c.set("k", "v")
assert s.get("k") == b"v"
print(json.dumps({"libuv": bool(getattr(s, "libuvBackend", False))}))
"#;

const RENDEZVOUS: &str = r#"
import json, os, socket, subprocess, sys
if "DOCTOR_RANK" not in os.environ:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = str(s.getsockname()[1])
    common = dict(os.environ, MASTER_ADDR="127.0.0.1", MASTER_PORT=port, WORLD_SIZE="2")
    ranks = [subprocess.Popen([sys.executable, "-c", os.environ["DOCTOR_SCRIPT"]],
             env=dict(common, RANK=str(r), DOCTOR_RANK=str(r))) for r in range(2)]
    codes = [r.wait() for r in ranks]
    sys.exit(max(abs(c) for c in codes))
import torch, torch.distributed as dist
dist.init_process_group("gloo", init_method="env://")
t = torch.ones(8) * (dist.get_rank() + 1)
dist.all_reduce(t)
assert torch.equal(t, torch.full((8,), 3.0)), t
store = dist.distributed_c10d._get_default_store()
while hasattr(store, "underlying_store"):
    store = store.underlying_store
libuv = bool(getattr(store, "libuvBackend", False))
rank = dist.get_rank()
dist.barrier()
dist.destroy_process_group()
if rank == 0:
    print(json.dumps({"libuv": libuv}), flush=True)
"#;

/// Runs all trials with what `python` would import, in the user's own environment.
pub fn all(python: &Interpreter) -> Result<Vec<Trial>> {
    [("a TCPStore with default arguments", STORE), ("init_process_group() with two Gloo ranks", RENDEZVOUS)]
        .into_iter()
        .map(|(name, script)| run(python, name, script))
        .collect()
}

fn run(python: &Interpreter, name: &'static str, script: &str) -> Result<Trial> {
    // The job's own rank must not leak into the trial; all else is the user's environment.
    let own = ["RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"];
    let environment = std::env::vars_os()
        .filter(|(n, _)| !own.iter().any(|o| n == o) && !n.to_string_lossy().starts_with("TORCHELASTIC_"));
    let process = Process::new(&python.executable)
        .args(["-c", script])
        .envs(environment)
        .env("DOCTOR_SCRIPT", script)
        .timeout(LIMIT);
    let started = std::time::Instant::now();
    let mut trial = Trial { name, ok: false, libuv: None, error: None, seconds: 0.0 };
    match process.run(None, &mut |_| {}) {
        Ok(output) => {
            let said = output.text.lines().rev().find_map(|l| serde_json::from_str::<serde_json::Value>(l.trim()).ok());
            trial.ok = output.status.success() && said.is_some();
            trial.libuv = said.and_then(|s| s["libuv"].as_bool()).filter(|_| trial.ok);
            if !trial.ok {
                trial.error = Some(last_error(&output.text));
            }
        }
        Err(e) if e.kind() == Some(Kind::Timeout) => {
            trial.error = Some(format!("it did not end within {} s", LIMIT.as_secs()));
        }
        Err(e) if e.kind() == Some(Kind::Cancelled) => return Err(e),
        Err(e) => return Err(Error::world("trial", format!("{name}: {e}"))),
    }
    trial.seconds = started.elapsed().as_secs_f64();
    Ok(trial)
}

/// The line that a Python traceback ends with.
fn last_error(text: &str) -> String {
    let is_error = |l: &&str| l.split(':').next().is_some_and(|n| n.ends_with("Error") || n.ends_with("Exception"));
    let line = text.lines().rev().find(is_error).or_else(|| text.lines().last());
    line.unwrap_or("it ended without a word").trim().to_owned()
}
