//! Before and after, on the distribution where the crash can be had with one command: the
//! `python3-torch` of Debian 13 (2.6.0) and of Debian unstable must end with the known error, in the same
//! script that verify runs on our wheels. Needs root, debootstrap and a gigabyte of packages for each, so it
//! runs only when asked for:
//!
//! ```text
//! cargo test --test main before_after:: -- --ignored --nocapture --test-threads 1
//! ```
//!
//! `TORCHMILL_DEBIAN_TRIXIE` and `TORCHMILL_DEBIAN_SID` name folders to keep the chroots in between runs.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::root;

/// With the word that newer versions have; they add what to do about it.
const KNOWN_ERROR: [&str; 2] = [
    "use_libuv was requested but PyTorch was build without libuv support",
    "use_libuv was requested but PyTorch was built without libuv support",
];

#[test]
#[ignore = "takes too much: root, debootstrap and a gigabyte of Debian 13"]
fn debian_13s_own_torch_ends_with_the_known_error_and_only_for_want_of_libuv() {
    ends_with_the_known_error("trixie");
}

#[test]
#[ignore = "takes too much: root, debootstrap and a gigabyte of Debian unstable"]
fn debian_unstables_own_torch_ends_with_the_known_error_and_only_for_want_of_libuv() {
    ends_with_the_known_error("sid");
}

fn ends_with_the_known_error(suite: &str) {
    let scratch = tempfile::tempdir().unwrap();
    let kept = format!("TORCHMILL_DEBIAN_{}", suite.to_uppercase());
    let chroot = std::env::var_os(kept).map_or_else(|| scratch.path().join(suite), PathBuf::from);
    bootstrap(&chroot, suite);
    // Libraries may say something before it, where /proc is not there.
    let said = succeeds(in_chroot(&chroot, &["python3", "-c", "import torch; print(torch.__version__)"]));
    let version = said.lines().last().unwrap_or_default();
    let all = ["dpkg-query", "-W", "-f", "${db:Status-Abbrev}${Package} ${Version}\n", "python3-torch", "libtorch2*"];
    let packages = succeeds(in_chroot(&chroot, &all));
    let packages: Vec<&str> = packages.lines().filter_map(|l| l.strip_prefix("ii ")).collect();

    let script = std::fs::read_to_string(root().join("tests/scenarios/s2_train.py")).unwrap();
    std::fs::write(chroot.join("s2_train.py"), &script).unwrap();
    let before = in_chroot(&chroot, &["python3", "/s2_train.py"]);
    assert!(!before.status.success(), "Debian's torch ran the script: is libuv in it now?");
    let said = String::from_utf8_lossy(&before.stderr);
    let error = said
        .lines()
        .rev()
        .find(|l| KNOWN_ERROR.iter().any(|known| l.contains(known)))
        .expect("it failed, but not with the known error");

    // The same build runs the same script once libuv is not asked for: nothing else is wrong with it.
    let around = script.replace("init_method=\"env://\"", "init_method=\"env://?use_libuv=False\"");
    assert_ne!(around, script);
    std::fs::write(chroot.join("s2_around.py"), around).unwrap();
    let worked_around = succeeds(in_chroot(&chroot, &["python3", "/s2_around.py"]));
    assert!(worked_around.contains("\"libuv\": false"), "{worked_around}");

    // What the table says of each way to make a store is what this torch does.
    let makers = std::fs::read_to_string(root().join("tests/scenarios/who_crashes.py")).unwrap();
    std::fs::write(chroot.join("who_crashes.py"), makers).unwrap();
    let crashed = succeeds(in_chroot(&chroot, &["python3", "/who_crashes.py"]));
    let crashed: serde_json::Value = serde_json::from_str(crashed.lines().last().unwrap_or_default()).unwrap();
    assert_eq!(crashed, expected(version), "{version}");

    println!("who crashes: {crashed}");
    println!("packages: {}", packages.join(", "));
    println!("torch: {}", version);
    println!("s2_train.py: exit {}, {}", before.status.code().unwrap_or(-1), error.trim());
    let result = worked_around.lines().last().unwrap_or_default();
    println!("s2_train.py with use_libuv=False: exit 0, {result}");
}

/// Which ways crash without libuv, by the table.
fn expected(version: &str) -> serde_json::Value {
    use torchmill::inspect::makers::{Maker, era};
    let era = era(version.trim()).unwrap();
    let of = |maker: Maker| maker == Maker::Binding && era.binding;
    serde_json::json!({
        "env": era.env.default,
        "env USE_LIBUV=0": era.env.default && !era.env.variable,
        "env url": era.env.default && !era.env.url,
        "tcp": era.tcp.default,
        "tcp url": era.tcp.default && !era.tcp.url,
        "worker": of(era.worker),
        "worker USE_LIBUV=0": of(era.worker),
        "worker url": of(era.worker),
        "static USE_LIBUV=0": of(era.r#static),
        "c10d USE_LIBUV=0": of(era.c10d),
        "own call USE_LIBUV=0": era.binding,
    })
}

/// Debian, from the mirror that this machine's APT names.
pub fn debian(chroot: &Path, suite: &str) {
    if !chroot.join("etc/debian_version").exists() {
        let mirror = torchmill::source::debian::mirrors().unwrap().remove(0);
        let out = Command::new("debootstrap").args(["--variant=minbase", suite]).arg(chroot).arg(mirror).output();
        succeeds(out.expect("debootstrap is not installed: `apt-get install debootstrap`"));
    }
}

/// The same with its `python3-torch`.
fn bootstrap(chroot: &Path, suite: &str) {
    if chroot.join("usr/lib/python3/dist-packages/torch/__init__.py").exists() {
        return;
    }
    debian(chroot, suite);
    let quiet = ["-qq", "-y", "--no-install-recommends"];
    // A mirror may be a frozen one, whose list of unstable says that it has expired.
    succeeds(in_chroot(chroot, &["apt-get", "update", "-qq", "-o", "Acquire::Check-Valid-Until=false"]));
    succeeds(in_chroot(chroot, &[&["apt-get", "install"], &quiet[..], &["python3-torch"]].concat()));
}

pub fn in_chroot(chroot: &Path, argv: &[&str]) -> Output {
    Command::new("chroot")
        .arg(chroot)
        .args(argv)
        .env_clear()
        .envs([("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), ("LC_ALL", "C.UTF-8"), ("HOME", "/tmp")])
        .envs([("DEBIAN_FRONTEND", "noninteractive"), ("OMP_NUM_THREADS", "1")])
        .output()
        .unwrap()
}

#[track_caller]
pub fn succeeds(out: Output) -> String {
    let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{}\n{stdout}\n{stderr}", out.status);
    stdout.into_owned()
}
