//! libuv, tree, configure and canary on the real sources of PyTorch: minutes, where a whole build
//! takes hours. What is made is kept below `target/`, so only the first run takes that long.

use std::process::Command;

use crate::support::{Ran, root, shared_store};

fn xtask(args: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_torchmill"));
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
    // What the compiler does not tell of the pieces was read, name by name (docs/results/unity.md): a new one is read too.
    let pieces = std::fs::read_to_string(work.join("logs/pieces.log")).unwrap();
    let (head, doubled) = pieces.split_once("\n\n").unwrap();
    let read: usize = head.split("declare, of ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(read > 850, "{head}");
    insta::assert_snapshot!("names_of_two_sources", doubled);
    let uv = work.join("deps/uv/include/uv/version.h");
    assert!(std::fs::read_to_string(uv).unwrap().contains("UV_VERSION_MINOR 52"));

    // The same objects come out when all that may vary does: the quick form of what docs/results/repro.md has whole.
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

/// The top-level list file of a version, out of Debian's archive of it.
fn list_file(version: &str, sha256: &str, size: u64) -> String {
    use torchmill::source::{Fetcher, Want, unpack};
    let store = torchmill::store::Store::open(Some(&shared_store())).unwrap();
    let coordinate = format!("debian:main/p/pytorch/pytorch_{version}+dfsg.orig.tar.xz");
    let want = Want {
        name: "pytorch".into(),
        coordinates: vec![coordinate.parse().unwrap()],
        expected: Some((sha256.into(), size)),
    };
    let bounds = unpack::Bounds { bytes: 8 << 30, members: 400_000 };
    let fetcher = Fetcher { store: &store, events: &torchmill::event::Silent, offline: false, root: &root(), bounds };
    let mut said = String::new();
    let fetched = (0..3).map(|_| fetcher.fetch_all(std::slice::from_ref(&want))).find_map(|got| match got {
        Err(e) if matches!(e.code(), "fetch" | "no-debian-mirror") => {
            said = e.to_string();
            None
        }
        got => Some(got.unwrap()),
    });
    let blobs = fetched.unwrap_or_else(|| panic!("the source of {version} cannot be downloaded here: {said}"));
    let dir = tempfile::tempdir().unwrap();
    let target = unpack::Target { strip: 1, keep: vec!["CMakeLists.txt".into()], ..unpack::Target::all(dir.path()) };
    unpack::unpack(&blobs[0].path, "pytorch", &[target], bounds, 1).unwrap();
    std::fs::read_to_string(dir.path().join("CMakeLists.txt")).unwrap()
}

#[test]
fn the_table_of_switches_has_every_option_of_the_real_trees() {
    use torchmill::recipe::features;
    let real = [
        ("2.6.0", "099a9601bc40d67656e75735c44abedb0fbe92d08817852ab7472eebb7e6ddff", 27_212_640),
        ("2.12.1", "95b6f85e1da2776f0cb0e5a635c4430b4e3f05b6ccb9e00237f3cecd15572875", 41_566_092),
    ];
    let mut seen = std::collections::BTreeSet::new();
    for (version, sha256, size) in real {
        let declared = features::declared(&list_file(version, sha256, size));
        assert!(declared.len() > 80, "{version}: {declared:?}");
        let unknown: Vec<_> = declared.iter().filter(|name| !features::KNOWN.contains(&name.as_str())).collect();
        assert!(unknown.is_empty(), "features.rs does not know these switches of {version}: {unknown:?}");
        seen.extend(declared);
    }
    // What no tree declares is there for a reason that is written down: it is no option, or was one in between.
    let in_between = ["USE_FBGEMM_GENAI"];
    let strange: Vec<_> = features::KNOWN
        .iter()
        .filter(|name| !seen.contains(**name) && !features::NO_OPTION.contains(name) && !in_between.contains(name))
        .collect();
    assert!(strange.is_empty(), "no tree declares these: {strange:?}");
}

/// A folder that another user can come to, as the second build is another user's where root runs this.
fn elsewhere() -> std::path::PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let open = |dir: &std::path::Path| std::fs::metadata(dir).is_ok_and(|m| m.permissions().mode() & 0o001 != 0);
    let target = root().join("target");
    let base = if target.ancestors().all(open) { target } else { std::env::temp_dir() };
    base.join("test-store-elsewhere")
}
