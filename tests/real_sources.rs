//! libuv, tree, configure and canary on the real sources of PyTorch: minutes, where a whole build
//! takes hours. What is made is kept below `target/`, so only the first run takes that long.

use std::process::Command;

use crate::support::{Ran, root, shared_store};

fn xtask(args: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.args(args).current_dir(root()).env("TORCHMILL_STORE", shared_store()).env("NO_COLOR", "1");
    Ran::of(&mut command, &root())
}

#[test]
fn the_default_recipe_reaches_a_libuv_store_that_answers() {
    let mut fetched = xtask(&["fetch", "--json"]);
    for _ in 0..2 {
        if fetched.code == Some(0) {
            break;
        }
        fetched = xtask(&["fetch", "--json"]);
    }
    fetched.exits(0);
    xtask(&["build-torch", "--until", "canary", "--json"]).exits(0);

    // What CMake decided was read back, and libuv is the one copy that this project built.
    let plan = xtask(&["build-torch", "--dry-run", "--json"]).exits(0);
    let plan: serde_json::Value = serde_json::from_str(&plan.stdout).unwrap();
    let work =
        std::path::PathBuf::from(plan["plan"]["work"].as_str().unwrap().replace("[DIR]", root().to_str().unwrap()));
    let canary: serde_json::Value = serde_json::from_slice(&std::fs::read(work.join("canary.json")).unwrap()).unwrap();
    assert_eq!(canary["report"]["libuv"], true);
    assert_eq!(canary["report"]["clients"], 8);
    let report = std::fs::read_to_string(work.join("src/build/torchmill-report.txt")).unwrap();
    for line in ["torch_cpu=libuv", "torch_python=libuv", "feature:USE_DISTRIBUTED=1", "feature:USE_CUDA=0"] {
        assert!(report.lines().any(|l| l == line), "{line} is not in\n{report}");
    }
    let uv = work.join("deps/uv/include/uv/version.h");
    assert!(std::fs::read_to_string(uv).unwrap().contains("UV_VERSION_MINOR 50"));

    // The same objects come out in another world: the quick form of what docs/results/repro.md has whole.
    let second = elsewhere().join("in/a/folder/of/another/length");
    let ran = xtask(&["repro", "--until", "canary", "--second", second.to_str().unwrap(), "--json"]).exits(0);
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(report["same"], true);
    let changed = report["changed"].as_array().unwrap();
    for what in ["HOME", "time zone", "umask", "clock", "compiler cache", "jobs", "store"] {
        assert!(changed.iter().any(|c| c[0] == what), "{what} was not changed: {changed:?}");
    }
    let objects = &report["compared"][0];
    assert!(objects["difference"]["same"].as_u64().unwrap() > 250, "{objects}");
}

/// A folder that another user can come to, as the second build is another user's where root runs this.
fn elsewhere() -> std::path::PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let open = |dir: &std::path::Path| std::fs::metadata(dir).is_ok_and(|m| m.permissions().mode() & 0o001 != 0);
    let target = root().join("target");
    let base = if target.ancestors().all(open) { target } else { std::env::temp_dir() };
    base.join("test-store-elsewhere")
}
