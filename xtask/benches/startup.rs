//! How long a build takes that has nothing to do, and a plan: in milliseconds, and as ratios to
//! `python3 -c pass` in the same run.
//!
//! ```text
//! cargo bench --profile dev --bench startup     # the profile that `cargo xtask` runs
//! ```
//!
//! Measures the default recipe where it is built in the user's store (or `TORCHMILL_STORE`), and
//! only the plan where it is not. What runs is `cargo xtask`, cargo's own start included.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)] // a benchmark that cannot go on panics

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

const ROUNDS: usize = 15;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn command(argv: &[&str]) -> Command {
    let mut command = Command::new(argv[0]);
    command.args(&argv[1..]).current_dir(root()).stdout(Stdio::null()).stderr(Stdio::null());
    // What `cargo bench` sets must not make `cargo xtask` build anew.
    for (name, _) in std::env::vars().filter(|(n, _)| n.starts_with("CARGO_") && n != "CARGO_HOME") {
        command.env_remove(name);
    }
    command
}

/// Milliseconds of one run.
fn time(argv: &[&str]) -> f64 {
    let started = Instant::now();
    assert!(command(argv).status().unwrap().success(), "{argv:?} failed");
    started.elapsed().as_secs_f64() * 1000.0
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let plan =
        command(&["cargo", "xtask", "build-torch", "--dry-run", "--json"]).stdout(Stdio::piped()).output().unwrap();
    let plan: serde_json::Value = serde_json::from_slice(&plan.stdout).expect("a plan");
    let built = plan["plan"]["stages"].as_array().unwrap().iter().all(|s| s["cached"] == true);
    let mut what: Vec<(&str, Vec<&str>)> = vec![
        ("python3 -c pass", vec!["python3", "-c", "pass"]),
        ("cargo xtask build-torch --dry-run", vec!["cargo", "xtask", "build-torch", "--dry-run"]),
    ];
    if built {
        what.push(("cargo xtask build-torch (all in the store)", vec!["cargo", "xtask", "build-torch"]));
    } else {
        println!("the default recipe is not built in this store: only the plan is measured");
    }
    let mut times = vec![Vec::new(); what.len()];
    for round in 0..=ROUNDS {
        for (i, (_, argv)) in what.iter().enumerate() {
            let ms = time(argv);
            // The first round warms the disk's cache.
            if round > 0 {
                times[i].push(ms);
            }
        }
    }
    let base = median(times[0].clone());
    println!("| what | median of {ROUNDS}, ms | ratio to python3 -c pass |\n|---|---|---|");
    for ((name, _), times) in what.iter().zip(times) {
        let ms = median(times);
        println!("| `{name}` | {ms:.0} | {:.1} |", ms / base);
    }
}
