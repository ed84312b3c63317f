//! A build with a warm compiler cache and an empty build folder, against the same tree built by hand
//! with plain ccache and the same flags: in turns, side by side, in one run.
//!
//! ```text
//! cargo xtask build-torch && cargo bench --profile dev --bench warm
//! ```
//!
//! By hand means: the same tree, environment and switches; ccache itself as the launcher, with
//! CCACHE_BASEDIR; one call of the PEP 517 hook as pip calls it. Ours means everything from configure to
//! the verified wheel and bundle: once where this store has verified these very bytes before, as it has
//! whenever a build folder is wiped, and once where the artifacts are installed and run again. The first
//! build by hand fills the cache and is not counted. Its command lines are others than ours, so it has none of
//! its objects; what ccache then calls in place of the compiler takes them from our entries, and compiles what is
//! not there.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)] // a benchmark that cannot go on panics

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use torchmill::recipe::DEFAULT;

use support::{copy, forget, is_built, plan, remove, stage, written, xtask};

const ROUNDS: usize = 3;
const HOOK: &str = "import sys; sys.path.insert(0, '.'); from setuptools import build_meta; sys.argv[1:], folder = [], sys.argv[1]; \
build_meta.__legacy__.build_wheel(folder)";

/// The recipe's ccache, in the store of the work folder.
fn ccache(work: &Path) -> PathBuf {
    let prefixes = std::fs::read_dir(work.ancestors().nth(2).unwrap().join("stages/prefix")).unwrap();
    let mut all = prefixes.flatten().map(|e| e.path().join("out/usr"));
    all.find(|usr| usr.join("bin/ccache").exists()).expect("the recipe's ccache")
}

/// The build's environment, moved from the work folder to `hand`, with the store's compiler cache.
fn environment(work: &Path, hand: &Path) -> BTreeMap<String, String> {
    let out = xtask(&["shell", "--", "env", "-0"]).output().unwrap();
    let (from, to) = (work.to_str().unwrap(), hand.to_str().unwrap());
    let mut env: BTreeMap<String, String> = String::from_utf8(out.stdout)
        .unwrap()
        .split('\0')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.replace(from, to)))
        .collect();
    let store = work.ancestors().nth(2).unwrap();
    for (name, value) in [
        ("LD_LIBRARY_PATH", ccache(work).join("lib/x86_64-linux-gnu").display().to_string()),
        ("CCACHE_DIR", store.join("cache/ccache").display().to_string()),
        ("CCACHE_BASEDIR", hand.display().to_string()),
        ("CCACHE_CONFIGPATH", "/dev/null".into()),
        ("CCACHE_MAXSIZE", "10G".into()),
        ("CCACHE_NOHASHDIR", "1".into()),
        ("CCACHE_COMPILERCHECK", "content".into()),
        ("CCACHE_DEPEND", "1".into()),
        ("MAX_JOBS", std::thread::available_parallelism().unwrap().to_string()),
    ] {
        env.insert(name.into(), value);
    }
    env
}

/// Milliseconds that the launcher puts before a program, on the mean of 200 starts.
fn launcher_cost() -> f64 {
    let run = |command: &mut Command| {
        let started = Instant::now();
        for _ in 0..200 {
            assert!(command.status().unwrap().success());
        }
        started.elapsed().as_secs_f64() / 0.2
    };
    run(&mut xtask(&["__launch", "/work", "/bin/true"])) - run(&mut Command::new("/bin/true"))
}

/// What stands between ccache and the compiler while the cache is filled: it asks the same cache for the object of the
/// command that our launcher makes of this one. ccache forbids itself to be called again, and asks for colours.
const FILL: &str = r#"#!/bin/sh
unset CCACHE_PREFIX CCACHE_BASEDIR CCACHE_DISABLE
for word do
  shift
  [ "$word" = -fdiagnostics-color ] || set -- "$@" "$word"
done
TORCHMILL_COMPILER_CACHE='CCACHE' exec 'TORCHMILL' __launch 'HAND' "$@"
"#;

/// Writes that program.
fn filler(work: &Path, hand: &Path) -> PathBuf {
    let ccache = ccache(work).join("bin/ccache");
    let text = FILL
        .replace("CCACHE'", &format!("{}'", ccache.display()))
        .replace("TORCHMILL'", &format!("{}'", env!("CARGO_BIN_EXE_torchmill")))
        .replace("HAND'", &format!("{}'", hand.display()));
    let path = hand.join("fill");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    path
}

/// Seconds of a build by hand; with a program that ccache puts before the compiler, if any.
fn by_hand(plan: &serde_json::Value, work: &Path, hand: &Path, prefix: Option<&Path>) -> f64 {
    remove(&hand.join("src"));
    remove(&hand.join("wheel"));
    for dir in ["home", "tmp", "wheel"] {
        std::fs::create_dir_all(hand.join(dir)).unwrap();
    }
    copy(&stage(plan, work, "tree").join("out"), &hand.join("src"));
    let mut env = environment(work, hand);
    env.extend(prefix.map(|program| ("CCACHE_PREFIX".to_owned(), program.display().to_string())));
    let log = std::fs::File::create(hand.join("log")).unwrap();
    written();
    let started = Instant::now();
    let status = Command::new(hand.join("deps/buildenv/bin/python"))
        .args(["-c", HOOK])
        .arg(hand.join("wheel"))
        .env_clear()
        .envs(env)
        .current_dir(hand.join("src"))
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .status()
        .unwrap();
    assert!(status.success(), "the build by hand failed: see {}", hand.join("log").display());
    started.elapsed().as_secs_f64()
}

/// Seconds of ours, from an empty build folder to the verified artifacts; `lost` are the results that
/// the store loses beside it.
fn ours(plan: &serde_json::Value, work: &Path, lost: &[&str]) -> f64 {
    forget(plan, work, lost);
    written();
    let started = Instant::now();
    assert!(xtask(&["build-torch", "--quiet"]).stdout(Stdio::null()).status().unwrap().success());
    started.elapsed().as_secs_f64()
}

fn main() {
    let plan = plan(DEFAULT);
    if !is_built(&plan) {
        println!("SKIPPED: the default recipe is not built in this store; run `cargo xtask build-torch` first");
        return;
    }
    let work = PathBuf::from(plan["work"].as_str().unwrap());
    let hand = work.with_file_name("by-hand");
    remove(&hand);
    std::fs::create_dir_all(&hand).unwrap();
    copy(&work.join("deps"), &hand.join("deps"));
    copy(&work.join("bin"), &hand.join("bin"));
    for name in ["project.cmake", "torchmill.cmake", "unity.cmake", "toolchain.cmake"] {
        // Not every recipe has all of them.
        if !work.join(name).exists() {
            continue;
        }
        let text = std::fs::read_to_string(work.join(name)).unwrap();
        let moved = text.replace(work.to_str().unwrap(), hand.to_str().unwrap());
        // ccache itself in place of our launcher.
        let lines = moved.lines().map(|line| match line.split_once("_COMPILER_LAUNCHER ") {
            Some((before, _)) => format!("{before}_COMPILER_LAUNCHER {})", ccache(&work).join("bin/ccache").display()),
            None => line.to_owned(),
        });
        std::fs::write(hand.join(name), lines.map(|line| line + "\n").collect::<String>()).unwrap();
    }
    let fill = filler(&work, &hand);
    let first = by_hand(&plan, &work, &hand, Some(&fill));
    println!("by hand, first time: {first:.0} s (not counted)");
    let artifacts = ["wheel", "bundle", "provenance"];
    let all = ["wheel", "bundle", "provenance", "verify"];
    let mut best = [f64::MAX; 3];
    println!("| round | by hand, s | ours, s | ours, installed and run again, s |\n|---|---|---|---|");
    for round in 1..=ROUNDS {
        let took = [by_hand(&plan, &work, &hand, None), ours(&plan, &work, &artifacts), ours(&plan, &work, &all)];
        println!("| {round} | {:.1} | {:.1} | {:.1} |", took[0], took[1], took[2]);
        best = std::array::from_fn(|i| best[i].min(took[i]));
    }
    println!("| best | {:.1} | {:.1} | {:.1} |", best[0], best[1], best[2]);
    println!("| ratio to by hand | 1 | {:.2} | {:.2} |", best[1] / best[0], best[2] / best[0]);
    println!("\nThe launcher puts {:.1} ms before each compiler.", launcher_cost());
    remove(&hand);
}
