//! `dist`: what a release hands out, made twice from this commit, installed and used where there is no clone.
//! It compiles everything optimized, twice, so it runs only when asked for:
//!
//! ```text
//! cargo test --test main dist:: -- --ignored --nocapture
//! ```

use std::path::Path;
use std::process::Command;

use crate::support::{Ran, root};

#[test]
#[ignore = "takes too much: compiles the program optimized, twice"]
fn a_release_is_the_same_twice_and_works_where_there_is_no_clone() {
    let out = tempfile::tempdir().unwrap();
    let mut dist = Command::new(env!("CARGO_BIN_EXE_torchmill"));
    dist.args(["dist", "--twice", "--json", "--out"]).arg(out.path()).current_dir(root());
    let made = Ran::of(&mut dist, out.path()).exits(0);
    let made: serde_json::Value = serde_json::from_str(&made.stdout).unwrap();
    let commit = made["from"]["commit"].as_str().unwrap().to_owned();
    for file in made["files"].as_array().unwrap() {
        println!("{} {} {}", file["sha256"].as_str().unwrap(), file["size"], file["file"].as_str().unwrap());
    }

    // Into an environment of its own, and run where nothing of this project is.
    let sums = Command::new("sha256sum").args(["--check", "--strict", "SHA256SUMS"]).current_dir(out.path()).output();
    assert!(sums.unwrap().status.success());
    let environment = out.path().join("environment");
    assert!(Command::new("python3").args(["-m", "venv"]).arg(&environment).status().unwrap().success());
    let wheels = wheels(out.path());
    let pip = |args: &[&str]| {
        let mut pip = Command::new(environment.join("bin/python"));
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]).args(args);
        Ran::of(&mut pip, out.path()).exits(0)
    };
    pip(&[wheels.iter().find(|w| w.contains("/torchmill-")).unwrap()]);
    pip(&[wheels.iter().find(|w| w.contains("/uvstore-") && w.contains("linux")).unwrap()]);
    // With the texts of the licences of all that is linked.
    let installed =
        Command::new("find").arg(&environment).args(["-path", "*torchmill-*.dist-info/licenses/*"]).output();
    let installed = String::from_utf8(installed.unwrap().stdout).unwrap();
    for file in ["LICENSE-MIT", "LICENSE-APACHE", "LICENSES-OF-RUST.html", "LICENSES-OF-CRATES.txt"] {
        assert!(installed.lines().any(|l| l.ends_with(file)), "{file} is not among {installed}");
    }
    let crates = std::fs::read_to_string(installed.lines().find(|l| l.ends_with("CRATES.txt")).unwrap()).unwrap();
    for name in ["git2 ", "libgit2-sys ", "zstd-sys ", "clap ", "ring "] {
        assert!(crates.contains(&format!("\n{name}")), "{name}");
    }
    assert!(crates.contains("LINKING EXCEPTION"), "libgit2's own");
    let empty = tempfile::tempdir().unwrap();
    let torchmill = |args: &[&str]| {
        let mut program = Command::new(environment.join("bin/torchmill"));
        program.args(args).current_dir(empty.path()).env_clear();
        program.envs([("HOME", empty.path().to_str().unwrap()), ("PATH", "/usr/bin:/bin"), ("NO_COLOR", "1")]);
        Ran::of(&mut program, empty.path())
    };
    torchmill(&["--version"]).exits(0).says(&commit);
    let help = torchmill(&["build-torch", "--help"]).exits(0);
    assert!(help.stdout.contains("torchmill build-torch --python 3.12") && !help.stdout.contains("cargo xtask"));
    torchmill(&["recipe", "list"]).exits(0).says("torch-2.6.0-cpu");
    torchmill(&["build-torch", "--dry-run"]).exits(0).says("compile       to do");
    torchmill(&["tree", "--recipe", "torch-2.7.1-cpu"]).exits(2).says("torchmill lock --recipe");
    torchmill(&["lock"]).exits(2).says("nobody edits");
    torchmill(&["doctor", "--explain", "/nowhere"]).exits(2);
    torchmill(&["doctor"]).exits(1).says("this Python has no torch");
    torchmill(&["inspect", "/bin/ls"]).exits(2).says("is not a torch");
    Ran::of(Command::new(environment.join("bin/uvstore")).arg("--help"), empty.path()).exits(0);

    // And pip makes the same program of the source, with nothing but that file, pip, Rust and the registries: without
    // optimizations here, by what the tests were compiled with.
    let source = out.path().join(format!("torchmill-{}.tar.gz", env!("CARGO_PKG_VERSION")));
    let mut wheel = Command::new(environment.join("bin/python"));
    wheel.args(["-m", "pip", "wheel", "--quiet", "--no-deps", "--config-settings=build-args=--profile=dev"]);
    wheel.arg("--wheel-dir").arg(empty.path().join("wheels")).arg(source).current_dir(empty.path());
    wheel.env("TORCHMILL_EMBED", "1").env("CARGO_TARGET_DIR", root().join("target"));
    Ran::of(&mut wheel, empty.path()).exits(0);
    pip(&["--force-reinstall", &self::wheels(&empty.path().join("wheels"))[0]]);
    torchmill(&["--version"]).exits(0).says(&commit);
    torchmill(&["recipe", "list"]).exits(0).says("torch-2.6.0-cpu");
}

fn wheels(dir: &Path) -> Vec<String> {
    let files = std::fs::read_dir(dir).unwrap().flatten().map(|e| e.path().to_str().unwrap().to_owned());
    files.filter(|f| f.ends_with(".whl")).collect()
}
