//! How long the verdict on a package beside a torch's wheel takes, from disk, against what else would tell: an environment
//! with both, and an import. In turns, side by side, in one run.
//!
//! ```text
//! cargo bench --profile dev --bench compat -- TORCH.whl PACKAGE.whl MODULE
//! ```
//!
//! `python3` must be the one that both are for; what they need beside each other comes from pip's index, or its cache.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)] // a benchmark that cannot go on panics

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

const ROUNDS: usize = 3;

/// Seconds of a command, which must end well.
fn seconds(command: &mut Command) -> f64 {
    let started = Instant::now();
    let out = command.stdout(Stdio::null()).stderr(Stdio::piped()).output().unwrap();
    assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
    started.elapsed().as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    // cargo bench adds an argument of its own.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let [torch, package, module] = &arguments[..] else {
        println!("usage: cargo bench --profile dev --bench compat -- TORCH.whl PACKAGE.whl MODULE");
        std::process::exit(2);
    };
    let [torch, package] = [torch, package].map(|path| std::fs::canonicalize(path).expect("a wheel"));
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    println!("{} ({} bytes), {}\n", name(&torch), std::fs::metadata(&torch).unwrap().len(), name(&package));
    let verdict = |store: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_torchmill"));
        seconds(command.arg("compat").arg(&torch).arg(&package).env("TORCHMILL_STORE", store))
    };
    let heads = ["compat, first", "compat, again", "venv and pip", "import"];
    println!("| round | {} |\n|---|---|---|---|---|", heads.map(|head| format!("{head}, s")).join(" | "));
    let mut all = vec![Vec::new(); heads.len()];
    // Round 0 brings files and pip's cache into place, and does not count.
    for round in 0..=ROUNDS {
        let dir = tempfile::tempdir().unwrap();
        let (store, env) = (dir.path().join("store"), dir.path().join("env"));
        let first = verdict(&store);
        let again = verdict(&store);
        let python = env.join("bin/python");
        let mut made = seconds(Command::new("python3").args(["-m", "venv"]).arg(&env));
        made += seconds(Command::new(&python).args(["-m", "pip", "install", "--quiet"]).arg(&torch).arg(&package));
        let import = format!("import torch, {module}");
        let imported = seconds(Command::new(&python).args(["-c", &import]).current_dir(dir.path()));
        if round > 0 {
            println!("| {round} | {first:.2} | {again:.2} | {made:.2} | {imported:.2} |");
            for (of_one, value) in all.iter_mut().zip([first, again, made, imported]) {
                of_one.push(value);
            }
        }
    }
    let medians: Vec<f64> = all.into_iter().map(median).collect();
    let [first, again, made, imported] = medians[..] else { unreachable!("four columns") };
    println!("| median | {first:.2} | {again:.2} | {made:.2} | {imported:.2} |");
    println!("\nan environment and an import / the first verdict: {:.1}", (made + imported) / first);
    println!("the import alone / the first verdict: {:.1}", imported / first);
}
