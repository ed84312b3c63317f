//! `verify` (digest, RECORD, recipe) against `sha256sum` on the same wheel: in turns, side by side, in
//! one run.
//!
//! ```text
//! cargo xtask build-torch && cargo bench --profile dev --bench verify
//! ```
//!
//! The wheel is the one in `dist/`, or the one that `TORCHMILL_WHEEL` names.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)] // a benchmark that cannot go on panics

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

const ROUNDS: usize = 9;

fn wheel() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("TORCHMILL_WHEEL") {
        return Some(path.into());
    }
    let dist = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../dist");
    std::fs::read_dir(dist).ok()?.flatten().map(|e| e.path()).find(|p| p.extension().is_some_and(|x| x == "whl"))
}

fn seconds(command: &mut Command) -> f64 {
    let started = Instant::now();
    assert!(command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
    started.elapsed().as_secs_f64()
}

fn main() {
    let Some(wheel) = wheel() else {
        println!("SKIPPED: there is no wheel in dist/; run `cargo xtask build-torch` first");
        return;
    };
    let ours = || seconds(Command::new(env!("CARGO_BIN_EXE_torchmill")).arg("verify").arg(&wheel));
    let theirs = || seconds(Command::new("sha256sum").arg(&wheel));
    let size = std::fs::metadata(&wheel).unwrap().len();
    println!("{} ({size} bytes)\n", wheel.file_name().unwrap().to_string_lossy());
    // Once each without counting, so that the file is in memory for both.
    ours();
    theirs();
    let (mut a, mut b) = (Vec::new(), Vec::new());
    println!("| round | verify, s | sha256sum, s |\n|---|---|---|");
    for round in 1..=ROUNDS {
        let (x, y) = (ours(), theirs());
        println!("| {round} | {x:.2} | {y:.2} |");
        a.push(x);
        b.push(y);
    }
    for times in [&mut a, &mut b] {
        times.sort_by(f64::total_cmp);
    }
    let (x, y) = (a[ROUNDS / 2], b[ROUNDS / 2]);
    println!("| median | {x:.2} | {y:.2} |\n\nratio verify / sha256sum: {:.2}", x / y);
}
