//! How long the verdict on a local Windows wheel takes, against Python's `zipfile` reading the same
//! members and looking for the same name: in turns, side by side, in one run.
//!
//! ```text
//! cargo bench --profile dev --bench inspect
//! ```
//!
//! The wheel is PyPI's torch 2.6.0 for win_amd64, fetched by pip once, or the file that
//! `TORCHMILL_WINDOWS_WHEEL` names.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)] // a benchmark that cannot go on panics
#![allow(unsafe_code)] // wait4() tells a child's peak memory, and has no safe interface in std
#![allow(clippy::zombie_processes)] // it is waited for by wait4()

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

const ROUNDS: usize = 7;

const PYTHON: &str = r#"
import sys, zipfile
name = b".?AVLibUVStoreDaemon@detail@c10d@@"
texts = ("torch/version.py", "torch/distributed/rendezvous.py")
with zipfile.ZipFile(sys.argv[1]) as wheel:
    for info in wheel.infolist():
        if info.filename in texts or info.filename.endswith(".dist-info/WHEEL"):
            wheel.read(info)
        elif info.filename == "torch/lib/torch_cpu.dll":
            found, tail = False, b""
            with wheel.open(info) as member:
                while piece := member.read(1 << 18):
                    found = found or name in tail + piece
                    tail = piece[-len(name):]
print(found)
"#;

fn wheel() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("TORCHMILL_WINDOWS_WHEEL") {
        return Some(path.into());
    }
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/bench-wheels");
    std::fs::create_dir_all(&dir).unwrap();
    let find = || {
        std::fs::read_dir(&dir).unwrap().flatten().map(|e| e.path()).find(|p| p.extension().is_some_and(|x| x == "whl"))
    };
    if find().is_none() {
        let pip =
            ["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--platform", "win_amd64"];
        let what = ["--python-version", "3.11", "torch==2.6.0", "--dest"];
        let _ = Command::new("python3").args(pip).args(what).arg(&dir).status();
    }
    find()
}

/// Seconds and peak memory in MiB of a command.
fn measure(command: &mut Command) -> (f64, f64) {
    let started = Instant::now();
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    // SAFETY: the structure is zeroed, and written by the call before it is read; the child is ours,
    // and nobody else waits for it.
    let usage = unsafe {
        let (mut status, mut usage) = (0, std::mem::zeroed::<libc::rusage>());
        assert_eq!(libc::wait4(child.id() as i32, &raw mut status, 0, &raw mut usage), child.id() as i32);
        usage
    };
    (started.elapsed().as_secs_f64(), usage.ru_maxrss as f64 / 1024.0)
}

fn main() {
    let Some(wheel) = wheel() else {
        println!("SKIPPED: the wheel cannot be downloaded here");
        return;
    };
    let ours = || {
        let mut c = Command::new(env!("CARGO_BIN_EXE_torchmill"));
        c.args(["inspect", "--verdict"]).arg(&wheel);
        measure(&mut c)
    };
    let theirs = || measure(Command::new("python3").args(["-c", PYTHON]).arg(&wheel));
    let size = std::fs::metadata(&wheel).unwrap().len();
    println!("{} ({size} bytes)\n", wheel.file_name().unwrap().to_string_lossy());
    // Once each without counting, so that the file is in memory for both.
    ours();
    theirs();
    let (mut a, mut b) = (Vec::new(), Vec::new());
    println!("| round | inspect --verdict, s | MiB | zipfile, s | MiB |\n|---|---|---|---|---|");
    for round in 1..=ROUNDS {
        let (x, y) = (ours(), theirs());
        println!("| {round} | {:.2} | {:.0} | {:.2} | {:.0} |", x.0, x.1, y.0, y.1);
        a.push(x.0);
        b.push(y.0);
    }
    for times in [&mut a, &mut b] {
        times.sort_by(f64::total_cmp);
    }
    let (x, y) = (a[ROUNDS / 2], b[ROUNDS / 2]);
    println!("| median | {x:.2} | | {y:.2} | |\n\nratio zipfile / inspect: {:.2}", y / x);
}
