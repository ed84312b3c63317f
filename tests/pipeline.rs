//! The pipeline on a stand-in for PyTorch: every stage, failure and resume.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::standin::{build, command, files, fresh_files, work_folder, workspace, workspace_with};
use crate::support::{Answer, Ran, Server, Workspace, sha256, shared_store};

/// A store of the workspace's own that shares the downloads of the common one.
pub fn own_store(w: &mut Workspace) {
    Ran::of(&mut w.xtask(&["fetch", "--recipe", "standin"]), w.path()).exits(0);
    w.store = w.path().join("own-store");
    let from = shared_store().join("v1/blobs");
    for entry in walk(&from) {
        let to = w.store.join("v1/blobs").join(entry.strip_prefix(&from).unwrap());
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        if std::fs::hard_link(&entry, &to).is_err() {
            std::fs::copy(&entry, &to).unwrap();
        }
    }
}

/// The same, with what tests of compiled objects are not about: the environment that builds, and libuv. They come from the
/// common store, which makes them once.
pub fn own_store_with_tools(w: &mut Workspace) {
    w.run(&["build-torch", "--recipe", "standin", "--until", "libuv"]).exits(0);
    let ran = w.run(&["build-torch", "--recipe", "standin", "--dry-run", "--json"]).exits(0);
    let plan: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let common = w.store.clone();
    own_store(w);
    for stage in plan["plan"]["stages"].as_array().unwrap() {
        let name = stage["stage"].as_str().unwrap();
        if ["buildenv", "libuv"].contains(&name) {
            let made = Path::new("v1/stages").join(name).join(&stage["key"].as_str().unwrap()[..20]);
            let to = w.store.join(&made);
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            let copied = std::process::Command::new("cp").arg("-a").args([common.join(&made), to]).status().unwrap();
            assert!(copied.success(), "{name}");
        }
    }
}

fn walk(dir: &Path) -> Vec<PathBuf> {
    walkdir::WalkDir::new(dir)
        .sort_by_file_name()
        .into_iter()
        .flatten()
        .filter(|e| e.file_type().is_file())
        .map(walkdir::DirEntry::into_path)
        .collect()
}

/// The one file with this end below the stage folder of the last build.
pub fn artifact(w: &Workspace, stage: &str, end: &str) -> PathBuf {
    let ran = w.run(&["build-torch", "--recipe", "standin", "--dry-run", "--json"]).exits(0);
    let json: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let key = json["plan"]["stages"].as_array().unwrap().iter().find(|s| s["stage"] == stage).unwrap()["key"]
        .as_str()
        .unwrap()
        .to_owned();
    let dir = w.store.join("v1/stages").join(stage).join(&key[..20]).join("out");
    std::fs::read_dir(&dir).unwrap().flatten().map(|e| e.path()).find(|p| p.to_str().unwrap().ends_with(end)).unwrap()
}

fn unzip(path: &Path) -> std::collections::BTreeMap<String, Vec<u8>> {
    let mut archive = zip::ZipArchive::new(std::fs::File::open(path).unwrap()).unwrap();
    (0..archive.len())
        .map(|i| {
            let mut entry = archive.by_index(i).unwrap();
            let mut data = Vec::new();
            entry.read_to_end(&mut data).unwrap();
            (entry.name().unwrap().into_owned(), data)
        })
        .collect()
}

fn has_libuv_store(library: &[u8]) -> bool {
    torchmill::inspect::library(&library.to_vec()).unwrap().iter().all(|l| !l.store.is_empty())
}

#[test]
fn a_wheel_and_a_bundle_with_libuv_come_out() {
    let w = workspace(&fresh_files());
    one_libuv_and_it_is_ours(&w);
    let wheel = artifact(&w, "wheel", ".whl");
    let name = wheel.file_name().unwrap().to_str().unwrap();
    assert!(
        name.starts_with("torch-2.6.0+standin-cp3") && name.contains("-manylinux_2_") && name.ends_with("_x86_64.whl"),
        "{name}"
    );
    let members = unzip(&wheel);
    let text = |n: &str| String::from_utf8(members[n].clone()).unwrap();
    assert!(
        text("torch/version.py").contains("git_version: Optional[str] = '0123456789012345678901234567890123456789'")
    );
    assert!(
        text("torch-2.6.0+standin.dist-info/WHEEL")
            .contains(&format!("Tag: {}", name.trim_start_matches("torch-2.6.0+standin-").trim_end_matches(".whl")))
    );
    assert_eq!(text("torch-2.6.0+standin.dist-info/licenses/standin/LICENSE"), "stand-in licence\n");
    assert!(members.contains_key("torch-2.6.0+standin.dist-info/licenses/libuv/LICENSE"));
    assert!(has_libuv_store(&members["torch/lib/libtorch_cpu.so"]));
    // RECORD names every member with its digest and size, and itself without.
    let record = text("torch-2.6.0+standin.dist-info/RECORD");
    let mut named = 0;
    for line in record.lines() {
        let mut fields = line.rsplitn(3, ',');
        let (size, digest, name) = (fields.next().unwrap(), fields.next().unwrap(), fields.next().unwrap());
        named += 1;
        if name.ends_with("/RECORD") {
            assert_eq!((digest, size), ("", ""));
        } else {
            assert_eq!(size.parse::<usize>().unwrap(), members[name].len());
            assert_eq!(digest.len(), "sha256=".len() + 43);
        }
    }
    assert_eq!(named, members.len());
    // Neither the store nor the work folder shows in anything that is shipped.
    let store = w.store.display().to_string();
    for (name, bytes) in &members {
        assert!(memchr::memmem::find(bytes, store.as_bytes()).is_none(), "{name} names the store");
    }
    assert_eq!(
        text("torch/share/cmake/ATen/ATenConfig.cmake"),
        "set(ATEN_INCLUDE_DIR \"${CMAKE_CURRENT_LIST_DIR}/../../../include\")\n"
    );
    assert!(
        memchr::memmem::find(&members["torch/lib/libtorch_cpu.so"], b"../fill/f0.cpp").is_some(),
        "__FILE__ is relative"
    );

    let bundle = artifact(&w, "bundle", ".tar.gz");
    let mut archive = tar::Archive::new(flate2::read::MultiGzDecoder::new(std::fs::File::open(bundle).unwrap()));
    let names: Vec<String> =
        archive.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string()).collect();
    for part in [
        "libtorch/build-hash",
        "libtorch/build-version",
        "libtorch/lib/libtorch_cpu.so",
        "libtorch/lib/libc10.so",
        "libtorch/include/torch/csrc/distributed/c10d/TCPStore.hpp",
    ] {
        assert!(names.iter().any(|n| n == part), "{part} is not in {names:?}");
    }
}

/// One libuv is in the process and it is ours, everybody compiled against its header (the stand-in's files
/// insist on that), and every compile goes through the launcher.
fn one_libuv_and_it_is_ours(w: &Workspace) {
    build(w, &[]).exits(0).says("canary: a libuv store of this build served 8 clients");
    let build = work_folder(w).join("src/build");
    // A definition that only its own library sees, `t`, is a libuv in the process too.
    let defined = ["libtorch_cpu.so", "libc10.so"].map(|library| {
        let mut nm = std::process::Command::new("nm");
        let symbols = Ran::of(nm.arg("--defined-only").arg(build.join("lib").join(library)), w.path()).exits(0);
        symbols.stdout.lines().filter(|l| l.ends_with(" T uv_version") || l.ends_with(" t uv_version")).count()
    });
    assert_eq!(defined, [1, 0]);
    let members = unzip(&artifact(w, "wheel", ".whl"));
    let found = torchmill::inspect::library(&members["torch/lib/libtorch_cpu.so"]).unwrap();
    assert_eq!(found[0].uv.as_ref().and_then(|l| l.version.as_deref()), Some("1.50.0"), "{found:?}");
    let ninja = std::fs::read_to_string(build.join("build.ninja")).unwrap();
    let compiles: Vec<&str> = ninja.split("\n\n").filter(|edge| edge.contains("_COMPILER__")).collect();
    assert!(compiles.len() >= 9, "{ninja}");
    for edge in compiles {
        assert!(edge.contains("LAUNCHER = ") && edge.contains("/bin/torchmill __launch "), "{edge}");
    }
}

#[test]
fn a_version_whose_setup_py_hands_nothing_to_cmake_gets_our_libuv() {
    let w = workspace(&crate::standin::files_of_2_12());
    one_libuv_and_it_is_ours(&w);
}

#[test]
fn a_tree_from_upstream_with_a_newer_libuv_of_its_own_gets_ours() {
    let w = workspace(&crate::standin::files_from_upstream());
    one_libuv_and_it_is_ours(&w);
    // Its own is no part of the build: of two archives with the same function a linker takes one, and says nothing.
    let build = work_folder(&w).join("src/build");
    for (file, trace) in [("build.ninja", "third_party/libuv/version.c"), (".ninja_log", "version.c.o")] {
        let text = std::fs::read_to_string(build.join(file)).unwrap();
        assert!(text.contains("tensorpipe.cpp.o") && !text.contains(trace), "{file}:\n{text}");
    }
}

#[test]
fn a_tree_that_is_not_pytorch_is_refused_at_configure() {
    let mut f = fresh_files();
    let list = f.get_mut("CMakeLists.txt").unwrap();
    *list = list.replace("project(Torch ", "project(Flashlight ");
    let w = workspace(&f);
    let ran = build(&w, &[]).exits(3).says("the tree's project is called 'Flashlight', not Torch");
    assert!(!ran.stderr.contains("» canary"), "{}", ran.stderr);
}

#[test]
fn a_module_that_would_run_twice_is_refused_at_configure() {
    let mut f = fresh_files();
    f.get_mut("CMakeLists.txt").unwrap().push_str("include(${CMAKE_SOURCE_DIR}/../torchmill.cmake)\n");
    let w = workspace(&f);
    build(&w, &[]).exits(3).says("its module was included a second time, in the project 'Torch'");
}

#[test]
fn a_build_in_which_the_module_did_not_run_is_stopped_at_configure() {
    let mut f = fresh_files();
    let setup = f.get_mut("setup.py").unwrap();
    *setup = setup.replace("*defs, \"..\"", "*defs, \"-DCMAKE_TOOLCHAIN_FILE=\", \"..\"");
    let w = workspace(&f);
    build(&w, &[]).exits(3).says("CMake ended without running torchmill's module");
}

#[test]
fn a_version_that_is_built_by_scikit_build_core_goes_the_same_way() {
    let files = crate::standin::files_of_2_14();
    let w = workspace_with(&files, |recipe| {
        let recipe = recipe.replace("epoch =", "backend = \"scikit-build-core\"\nepoch =");
        recipe.replace("build = [", "build = [\"scikit-build-core==1.1.1\", \"pathspec==0.12.1\",")
    });
    // Two packages more than the real recipe has: their digests come from the index.
    w.run(&["lock", "--recipe", "standin"]).exits(0);
    // Configure alone compiles nothing.
    w.run(&["build-torch", "--recipe", "standin", "--until", "configure"]).exits(0);
    assert_eq!(compiled(&work_folder(&w)), Vec::<String>::new());
    one_libuv_and_it_is_ours(&w);
    let members = unzip(&artifact(&w, "wheel", ".whl"));
    assert!(has_libuv_store(&members["torch/lib/libtorch_cpu.so"]));
    assert!(members.contains_key("torch/include/torch/csrc/distributed/c10d/TCPStore.hpp"));
}

#[test]
fn pip_installs_the_wheel_and_auditwheel_agrees_with_its_tag() {
    let w = workspace(&files());
    build(&w, &[]).exits(0);
    let wheel = artifact(&w, "wheel", ".whl");
    let env = w.path().join("env");
    let run = |program: &Path, args: &[&str]| {
        let out = std::process::Command::new(program).args(args).output().unwrap();
        assert!(
            out.status.success(),
            "{args:?}: {}{}",
            String::from_utf8_lossy(&out.stdout),
            String::from_utf8_lossy(&out.stderr)
        );
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    run(Path::new("python3"), &["-m", "venv", env.to_str().unwrap()]);
    let python = env.join("bin/python");
    run(&python, &["-m", "pip", "install", "--no-index", "--quiet", wheel.to_str().unwrap()]);
    assert_eq!(run(&python, &["-c", "import torch; print(torch.__version__)"]).trim(), "2.6.0+standin");
    // Of the environment that all builds of this store share: nothing is compiled beside what stands there (-B).
    let buildenv = work_folder(&w).join("deps/buildenv/bin/python");
    let shown = run(&buildenv, &["-B", "-m", "auditwheel", "show", wheel.to_str().unwrap()]);
    let tag = wheel
        .file_name()
        .unwrap()
        .to_str()
        .unwrap()
        .split("-manylinux")
        .nth(1)
        .unwrap()
        .trim_end_matches(".whl")
        .to_owned();
    assert!(shown.contains(&format!("manylinux{tag}")), "auditwheel says:\n{shown}");
}

#[test]
fn two_builds_in_different_stores_give_the_same_bytes() {
    let mut digests = Vec::new();
    for more in [&["--jobs", "1"][..], &["--jobs", "3", "--no-compiler-cache"]] {
        let mut w = workspace(&files());
        own_store(&mut w);
        if digests.is_empty() {
            // Another length of path, too.
            let longer = w.path().join("a-much-longer-name-for-the-second-store");
            std::fs::rename(&w.store, &longer).unwrap();
            w.store = longer;
        }
        build(&w, more).exits(0);
        digests.push(
            [artifact(&w, "wheel", ".whl"), artifact(&w, "bundle", ".tar.gz")]
                .map(|p| sha256(&std::fs::read(p).unwrap())),
        );
    }
    assert_eq!(digests[0], digests[1]);
}

#[test]
fn a_second_run_does_nothing_and_needs_no_network() {
    let w = workspace(&files());
    build(&w, &[]).exits(0);
    let again = build(&w, &["--offline"]).exits(0);
    assert!(!again.stderr.contains('»'), "something ran again:\n{}", again.stderr);
}

#[test]
fn a_dry_run_shows_the_plan_and_does_nothing() {
    let mut w = workspace(&files());
    w.store = w.path().join("empty");
    let ran = w.run(&["build-torch", "--recipe", "standin", "--dry-run"]).exits(0);
    for stage in torchmill::stage::ORDER.iter().skip(1) {
        assert!(ran.stdout.contains(stage), "{stage} is not in\n{}", ran.stdout);
    }
    assert!(ran.stdout.contains("to download:"));
    assert!(walk(&w.store).iter().all(|p| p.starts_with(w.store.join("v1/locks"))), "{:?}", walk(&w.store));
}

#[test]
fn a_dry_run_says_that_a_recipe_is_a_draft() {
    let planned = |w: &Workspace, draft: bool| {
        let plan = ["build-torch", "--recipe", "standin", "--dry-run"];
        let ran = w.run(&plan).exits(0);
        assert_eq!(ran.stdout.contains("standin (a draft) 2.6.0+standin for Python "), draft, "{}", ran.stdout);
        let warning = "warning: standin is a draft: it was never built to the end here";
        assert_eq!(ran.stderr.contains(warning), draft, "{}", ran.stderr);
        let ran = w.run(&[&plan[..], &["--json"]].concat()).exits(0);
        let json: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(json["draft"], draft);
    };
    planned(&workspace(&files()), true);
    planned(&workspace_with(&files(), with_torch("status = \"built-here\"")), false);
}

#[test]
fn several_pythons_are_all_looked_at_before_the_first_is_built() {
    let w = workspace(&files());
    let asked =
        |pythons: &str| w.run(&["build-torch", "--recipe", "standin", "--python", pythons, "--dry-run", "--json"]);
    let two: serde_json::Value = serde_json::from_str(&asked("python3,python3").exits(0).stdout).unwrap();
    let versions: Vec<&str> = two["builds"].as_array().unwrap().iter().map(|b| b["python"].as_str().unwrap()).collect();
    assert!(versions.len() == 2 && versions[0] == versions[1], "{versions:?}");
    // One is said as it ever was.
    let one: serde_json::Value = serde_json::from_str(&asked("python3").exits(0).stdout).unwrap();
    assert_eq!((&one["python"], &one["builds"]), (&two["builds"][0]["python"], &serde_json::Value::Null));
    asked("python3,").exits(2).says("--python python3,: one of the names is empty");
    asked("python3,all").exits(2).says("all stands for every Python of the recipe, and stands alone");
    let with = ["build-torch", "--recipe", "standin", "--dry-run", "--with", "torchvision,"];
    w.run(&with).exits(2).says("--with");
    let ran = w.run(&["build-torch", "--recipe", "standin", "--python", "python3,no-such-python", "--until", "wheel"]);
    let ran = ran.exits(3).says("there is no Python 'no-such-python' on this machine");
    assert!(!ran.stderr.contains("» "), "something was begun:\n{}", ran.stderr);
}

/// What a dry run says of a stage: its state, and why it would run.
fn planned(w: &Workspace, stage: &str) -> (String, Vec<String>) {
    let ran = w.run(&["build-torch", "--recipe", "standin", "--dry-run", "--json"]).exits(0);
    said_of(&ran, stage)
}

fn said_of(ran: &Ran, stage: &str) -> (String, Vec<String>) {
    let json: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let stages = json["plan"]["stages"].as_array().unwrap();
    let said = stages.iter().find(|s| s["stage"] == stage).unwrap();
    let why = said["why"].as_array().unwrap().iter().map(|w| w.as_str().unwrap().to_owned()).collect();
    (said["state"].as_str().unwrap().to_owned(), why)
}

#[test]
fn a_dry_run_says_in_which_input_a_stage_differs_from_its_nearest_earlier_result() {
    let mut w = workspace(&files());
    own_store(&mut w);
    assert_eq!(planned(&w, "configure"), ("to-do".into(), vec!["it was never made in this store".into()]));
    build(&w, &[]).exits(0);
    assert_eq!(planned(&w, "configure"), ("done".into(), vec![]));
    let recipe = std::fs::read_to_string(w.path().join("recipes/standin.toml")).unwrap();
    let changed = |from: &str, to: &str| {
        assert!(recipe.contains(from));
        w.write("recipes/standin.toml", recipe.replace(from, to));
    };

    changed("local = \"standin\"", "local = \"another\"");
    let why = ["version: 2.6.0+standin → 2.6.0+another"].map(str::to_owned).to_vec();
    assert_eq!(planned(&w, "configure"), ("to-do".into(), why));
    assert_eq!(planned(&w, "canary"), ("to-do".into(), vec!["configure changed".into()]));
    assert_eq!(planned(&w, "tree").0, "done");
    let ran = w.run(&["build-torch", "--recipe", "standin", "--dry-run"]).exits(0);
    assert!(ran.stdout.contains("      because version: 2.6.0+standin → 2.6.0+another\n"), "{}", ran.stdout);

    changed("BUILD_TEST = false", "BUILD_TEST = true");
    assert_eq!(planned(&w, "configure").1, ["feature BUILD_TEST: off → on"]);
    changed("epoch = 1738108800", "epoch = 1738108801");
    assert_eq!(planned(&w, "libuv").1, ["epoch: 1738108800 → 1738108801"]);
    changed(
        "[[source]]\nname = \"libuv\"",
        "[[patch]]\nfile = \"x.patch\"\nreason = \"r\"\n[[source]]\nname = \"libuv\"",
    );
    w.write("patches/x.patch", "--- a/LICENSE\n+++ b/LICENSE\n@@ -1 +1 @@\n-stand-in licence\n+another licence\n");
    assert!(planned(&w, "tree").1.contains(&"patches/x.patch is new".into()), "{:?}", planned(&w, "tree"));
    w.run(&["tree", "--recipe", "standin"]).exits(0);
    w.write("patches/x.patch", "--- a/LICENSE\n+++ b/LICENSE\n@@ -1 +1 @@\n-stand-in licence\n+a third licence\n");
    assert_eq!(planned(&w, "tree").1, ["patches/x.patch changed"]);
    w.write("recipes/standin.toml", &recipe);

    // Another compiler.
    let other = w.write(
        "other-g++",
        "#!/bin/sh\ncase \"$1\" in --version) echo 'g++ (Other) 99.1';; *) exec g++ \"$@\";; esac\n",
    );
    std::process::Command::new("chmod").arg("+x").arg(&other).status().unwrap();
    let mut command = w.xtask(&["build-torch", "--recipe", "standin", "--dry-run", "--json"]);
    command.env("CXX", &other);
    let (_, why) = said_of(&Ran::of(&mut command, w.path()).exits(0), "libuv");
    assert!(why[0].starts_with("compiler: ") && why[0].ends_with(" → g++ (Other) 99.1"), "{why:?}");

    // The wheel is there: what comes before it is not looked at. Without it, what was begun is finished.
    let records = walk(&w.store.join("v1/work")).into_iter().filter(|p| p.ends_with("canary.json"));
    assert_eq!(records.map(|record| std::fs::remove_file(record).unwrap()).count(), 1);
    assert_eq!(planned(&w, "canary").0, "not-needed");
    std::fs::remove_dir_all(w.store.join("v1/stages/wheel")).unwrap();
    assert_eq!(planned(&w, "canary"), ("to-do".into(), vec!["it was begun and not finished".into()]));
    assert_eq!(planned(&w, "configure").0, "done");
}

#[test]
fn a_stage_that_a_recipe_has_nothing_for_is_refused_and_a_single_one_can_be_asked_for() {
    let w = workspace(&files());
    let until = |stage: &str| w.run(&["build-torch", "--recipe", "standin", "--until", stage]);
    until("cuda").exits(2).says("the recipe standin has nothing for the stage 'cuda' to do").says("--dry-run");
    until("prefix").exits(2).says("the recipe standin has nothing for the stage 'prefix' to do");
    until("buildenv").exits(0).says("stopped after buildenv");
    let plan = w.run(&["build-torch", "--recipe", "standin", "--dry-run", "--until", "buildenv", "--json"]).exits(0);
    assert_eq!(said_of(&plan, "buildenv").0, "done");
    assert_eq!(said_of(&plan, "prefix").0, "not-of-this-build");
    assert!(!plan.stdout.contains("to-do"), "{}", plan.stdout);
}

/// The stand-in whose list files hand the ABI of strings on, as PyTorch's up to 2.6 do.
fn files_with_two_abis() -> std::collections::BTreeMap<String, String> {
    let mut f = fresh_files();
    let list = f.get_mut("CMakeLists.txt").unwrap();
    *list = list.replace(
        "set(CMAKE_CXX_STANDARD 17)\n",
        "set(CMAKE_CXX_STANDARD 17)\nif(NOT DEFINED GLIBCXX_USE_CXX11_ABI)\n  set(GLIBCXX_USE_CXX11_ABI 1)\nendif()\n\
         string(APPEND CMAKE_CXX_FLAGS \" -D_GLIBCXX_USE_CXX11_ABI=${GLIBCXX_USE_CXX11_ABI}\")\n",
    );
    f
}

/// The stand-in's recipe with this line in `[torch]`.
fn with_torch(line: &'static str) -> impl Fn(String) -> String {
    move |recipe| recipe.replace("local = \"standin\"", &format!("local = \"standin\"\n{line}"))
}

#[test]
fn a_build_with_the_abi_before_cxx11_has_no_string_of_the_other_and_says_so_in_its_name() {
    let w = workspace_with(&files_with_two_abis(), with_torch("cxx11-abi = false"));
    build(&w, &[]).exits(0);
    let library = unzip(&artifact(&w, "wheel", ".whl")).remove("torch/lib/libtorch_cpu.so").unwrap();
    assert!(has_libuv_store(&library));
    assert!(memchr::memmem::find(&library, b"__cxx11").is_none(), "it has strings of the C++11 ABI");
    let bundle = artifact(&w, "bundle", ".tar.gz");
    let name = bundle.file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with("libtorch-pre-cxx11-abi-2.6.0+standin-linux-"), "{name}");
}

#[test]
fn a_version_that_does_not_hand_the_abi_on_is_stopped_at_configure() {
    let w = workspace_with(&fresh_files(), with_torch("cxx11-abi = false"));
    build(&w, &[]).exits(3).says("torch.cxx11-abi: the recipe says false, and CMAKE_CXX_FLAGS ended as");
}

#[test]
fn the_usual_abi_is_in_no_key_whether_it_is_said_or_not() {
    let keys = |line: &'static str| {
        let w = workspace_with(&files(), with_torch(line));
        let ran = w.run(&["build-torch", "--recipe", "standin", "--dry-run", "--json"]).exits(0);
        let json: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        let of = |s: &serde_json::Value| (s["stage"].to_string(), s["key"].to_string());
        json["plan"]["stages"].as_array().unwrap().iter().map(of).collect::<Vec<_>>()
    };
    assert_eq!(keys("cxx11-abi = true"), keys(""));
    let configure = |keys: Vec<(String, String)>| keys.into_iter().find(|(stage, _)| stage.contains("configure"));
    assert_ne!(configure(keys("cxx11-abi = false")), configure(keys("")));
}

/// The stand-in with an assembler source that says nothing of its stack, as one of oneDNN's does; `more` is said of the
/// library that it is in.
fn files_with_an_assembler_source(more: &str) -> std::collections::BTreeMap<String, String> {
    let mut files = files();
    let list = files.get_mut("CMakeLists.txt").unwrap();
    let library = "add_library(c10 SHARED c10/c10.cpp)";
    assert!(list.contains(library), "{list}");
    let with = format!("enable_language(ASM)\nadd_library(c10 SHARED c10/c10.cpp c10/mark.S)\n{more}");
    *list = list.replace(library, &with);
    files.insert("c10/mark.S".into(), ".text\n.globl mark\nmark: ret\n".into());
    files
}

#[test]
fn no_library_asks_for_an_executable_stack_or_there_is_no_wheel() {
    let w = workspace(&files_with_an_assembler_source(""));
    w.run(&["build-torch", "--recipe", "standin", "--until", "wheel"]).exits(0);
    let wheel = unzip(&artifact(&w, "wheel", ".whl"));
    let asks = |library: &str| torchmill::inspect::Elf::parse(&wheel[library]).unwrap().executable_stack;
    assert!(!asks("torch/lib/libc10.so") && !asks("torch/lib/libtorch_cpu.so"));
    // What a list file demands of one library wins; the C library of 2.41 would not load it.
    let w = workspace(&files_with_an_assembler_source("target_link_options(c10 PRIVATE -Wl,-z,execstack)\n"));
    let ran = w.run(&["build-torch", "--recipe", "standin", "--until", "wheel"]).exits(3);
    ran.says("ask for an executable stack").says("torch/lib/libc10.so").says("-Wl,-z,noexecstack");
}

/// A tree in which one source is generated and one has a flag of its own.
fn files_to_put_together() -> std::collections::BTreeMap<String, String> {
    let mut f = files();
    let list = f.get_mut("caffe2/CMakeLists.txt").unwrap();
    *list = list.replace(
        "add_library(torch_cpu SHARED ",
        "foreach(name g k)\n\
         set(one ${CMAKE_BINARY_DIR}/made/${name}.cpp)\n\
         list(APPEND made ${one})\n\
         add_custom_command(OUTPUT ${one} COMMAND ${CMAKE_COMMAND} -E copy ${CMAKE_SOURCE_DIR}/fill/${name}.in ${one})\n\
         endforeach()\n\
         set_source_files_properties(${CMAKE_SOURCE_DIR}/fill/f4.cpp PROPERTIES COMPILE_DEFINITIONS OWN)\n\
         add_library(torch_cpu SHARED ${made} ",
    );
    f.insert("fill/g.in".into(), "int made_by_the_build() { return 7; }\n".into());
    f.insert("fill/k.in".into(), "int made_by_it_too() { return 9; }\n".into());
    f.insert("fill/h.cpp".into(), "int last_of_its_folder() { return 8; }\n".into());
    // What one leaves behind would break the next.
    f.get_mut("fill/f1.cpp").unwrap().insert_str(0, "#define LEFT_BEHIND 1\n");
    f.get_mut("fill/f2.cpp").unwrap().insert_str(0, "#ifdef LEFT_BEHIND\n#error left behind\n#endif\n");
    // What two sources name in the same way: together they would not compile.
    for i in [0, 5] {
        f.get_mut(&format!("fill/f{i}.cpp")).unwrap().push_str("namespace { int same() { return 1; } }\nint g_");
        f.get_mut(&format!("fill/f{i}.cpp")).unwrap().push_str(&format!("{i}() {{ return same(); }}\n"));
    }
    f
}

#[test]
fn sources_are_compiled_several_at_a_time_where_the_recipe_says_so() {
    let put = "[unity.torch_cpu]\nbatch = 3\nsources = [\"fill/*\", \"made/*.cpp\"]\nalone = [\"fill/f5.cpp\"]\n\
               undefine = [\"LEFT_BEHIND\"]\n";
    let w = workspace_with(&files_to_put_together(), |r| r + put);
    build(&w, &[]).exits(0);
    let folder = work_folder(&w).join("src/build");
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap().replace("\n#undef LEFT_BEHIND\n", "\n");
    // Named from the top of the tree, so that the file is the same in every folder.
    assert_eq!(
        read("unity/torch_cpu/0-0.cpp"),
        "#include \"fill/f0.cpp\"\n#include \"fill/f1.cpp\"\n#include \"fill/f2.cpp\"\n"
    );
    // What is alone keeps its place, so that taking it out changes no other piece.
    assert_eq!(read("unity/torch_cpu/0-1.cpp"), "#include \"fill/f3.cpp\"\n#include \"fill/h.cpp\"\n");
    // A piece holds sources of one pattern.
    assert_eq!(read("unity/torch_cpu/1-0.cpp"), "#include \"made/g.cpp\"\n#include \"made/k.cpp\"\n");
    let pieces = std::fs::read_dir(folder.join("unity/torch_cpu")).unwrap().count();
    assert_eq!(pieces, 3);
    let ninja = read("build.ninja");
    for (i, by_itself) in [false, false, false, false, true, true].into_iter().enumerate() {
        let compiled = ninja.contains(&format!("build caffe2/CMakeFiles/torch_cpu.dir/__/fill/f{i}.cpp.o:"));
        assert_eq!(compiled, by_itself, "f{i}");
    }
    let members = unzip(&artifact(&w, "wheel", ".whl"));
    let library = &members["torch/lib/libtorch_cpu.so"];
    for text in ["../fill/f0.cpp", "../fill/f5.cpp", "made_by_the_build"] {
        assert!(memchr::memmem::find(library, text.as_bytes()).is_some(), "{text}");
    }
    assert!(memchr::memmem::find(library, b"unity/torch_cpu").is_none());
    // What was made so can be made again from what it carries.
    assert!(members.keys().any(|name| name.ends_with("torchmill/patches/cmake/unity.cmake")), "{:?}", members.keys());
}

#[test]
fn a_name_of_several_files_is_another_one_in_each_where_the_recipe_says_so() {
    let put =
        "[unity.torch_cpu]\nbatch = 8\nsources = [\"fill/*\"]\nundefine = [\"LEFT_BEHIND\"]\nrename = [\"same\"]\n";
    let w = workspace_with(&files_to_put_together(), |r| r + put);
    build(&w, &[]).exits(0);
    let build = work_folder(&w).join("src/build");
    let piece = std::fs::read_to_string(build.join("unity/torch_cpu/0-0.cpp")).unwrap();
    assert!(
        piece.starts_with(
            "#define same same_0\n#include \"fill/f0.cpp\"\n#undef LEFT_BEHIND\n#undef same\n#define same same_1\n"
        ),
        "{piece}"
    );
    let ninja = std::fs::read_to_string(build.join("build.ninja")).unwrap();
    for name in ["f0", "f5"] {
        assert!(!ninja.contains(&format!("build caffe2/CMakeFiles/torch_cpu.dir/__/fill/{name}.cpp.o:")), "{name}");
    }
    let names = std::fs::read_to_string(work_folder(&w).join("logs/pieces.log")).unwrap();
    assert!(!names.contains("same"), "{names}");
}

/// The keys of the stages that are planned with `more` in the recipe, and what is said.
fn keys_with(more: &'static str) -> (Vec<String>, String) {
    let w = workspace_with(&files(), |r| r + more);
    let ran = w.run(&["build-torch", "--recipe", "standin", "--dry-run", "--json"]).exits(0);
    let json: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    (json["plan"]["stages"].as_array().unwrap().iter().map(|s| s["key"].to_string()).collect(), ran.stderr)
}

#[test]
fn a_compiler_that_a_recipe_was_not_built_with_is_told_before_the_build_and_in_no_key() {
    let (keys, said) = keys_with("");
    assert!(!said.contains("was built to the end with"), "{said}");
    let (tried, said) = keys_with("[toolchain]\ntried = [\"gcc 4.1\"]\n");
    assert!(said.contains("standin was built to the end with gcc 4.1: with another compiler it may stop"), "{said}");
    assert_eq!(tried, keys);
}

#[test]
fn a_batch_of_one_is_no_batch_and_in_no_key() {
    let (keys, _) = keys_with("");
    assert_eq!(keys_with("[unity.torch_cpu]\nbatch = 1\n").0, keys);
    assert_ne!(keys_with("[unity.torch_cpu]\nbatch = 2\n").0, keys);
}

#[test]
fn batches_that_fit_nothing_or_do_not_compile_stop_the_build() {
    for (put, said) in [
        ("[unity.torch_gpu]\nbatch = 3\n", "[unity.torch_gpu] names no target of this build"),
        ("[unity.torch_cpu]\nbatch = 3\nsources = [\"full/*\"]\n", "[unity.torch_cpu] fits fewer than two sources"),
        ("[unity.torch_cpu]\nbatch = 8\nsources = [\"fill/*\"]\n", "{anonymous}::same()"),
    ] {
        let w = workspace_with(&files_to_put_together(), |r| r + put);
        build(&w, &[]).exits(3).says(said);
    }
    let w = workspace(&files());
    let recipe = std::fs::read_to_string(w.path().join("recipes/standin.toml")).unwrap();
    w.write("recipes/standin.toml", recipe + "[unity.torch_cpu]\nbatch = 65\n");
    build(&w, &[]).exits(2).says("unity.torch_cpu: batch is 65");
}

#[test]
fn a_silent_downgrade_stops_the_build_at_configure() {
    let w = workspace_with(&files(), |r| r.replace("USE_MKLDNN = false", "USE_MKLDNN = true"));
    build(&w, &[]).exits(3).says("USE_MKLDNN: the recipe says on, CMake ended with 'OFF'");
}

#[test]
fn a_build_that_would_end_without_libuv_stops_at_the_canary() {
    let mut f = files();
    f.get_mut("caffe2/CMakeLists.txt").unwrap().push_str(
        "set_source_files_properties(${d}/TCPStoreLibUvBackend.cpp PROPERTIES COMPILE_OPTIONS -UTORCH_USE_LIBUV)\n",
    );
    let w = workspace(&f);
    let ran = build(&w, &[]).exits(3).says("was compiled without the libuv store");
    assert!(!ran.stderr.contains("» compile"), "{}", ran.stderr);
}

#[test]
fn a_store_that_answers_wrongly_stops_at_the_canary() {
    let mut f = files();
    let cpp = f.get_mut("torch/csrc/distributed/c10d/TCPStore.cpp").unwrap();
    *cpp = cpp.replace("counters[k] += n", "counters[k] += n + 1");
    let w = workspace(&f);
    build(&w, &[]).exits(3).says("canary: the counter says").says("would end without a working libuv store");
}

#[test]
fn the_first_compile_error_is_shown_with_advice() {
    let mut f = files();
    f.insert("fill/f3.cpp".into(), "#include <no_such_header.h>\n".into());
    let w = workspace(&f);
    build(&w, &["--jobs", "1"]).exits(3).says("no_such_header.h").says("a header is missing").says("compile.log");
}

#[test]
fn a_build_that_keeps_going_compiles_what_it_can_and_names_all_that_failed() {
    let mut f = files();
    for i in [0, 5] {
        f.insert(format!("fill/f{i}.cpp"), "#include <no_such_header.h>\n".into());
    }
    let w = workspace(&f);
    let compiled = |i: usize| {
        work_folder(&w).join(format!("src/build/caffe2/CMakeFiles/torch_cpu.dir/__/fill/f{i}.cpp.o")).exists()
    };
    let ran = build(&w, &["--jobs", "1"]).exits(3);
    assert!(!ran.stderr.contains("so did"), "{}", ran.stderr);
    build(&w, &["--jobs", "1", "--keep-going"]).exits(3).says("no_such_header.h").says("so did 1 more: ");
    assert_eq!((0..6).map(compiled).collect::<Vec<_>>(), [false, true, true, true, true, false]);
}

#[test]
fn a_patch_that_does_not_apply_stops_the_build_and_names_its_hunk() {
    let mut files = files();
    files.insert("a.txt".into(), "one\ntwo\n".into());
    let w = workspace(&files);
    w.write("patches/x.patch", "--- a/a.txt\n+++ b/a.txt\n@@ -1,2 +1,2 @@\n one\n-zwei\n+2\n");
    let recipe = std::fs::read_to_string(w.path().join("recipes/standin.toml")).unwrap();
    w.write("recipes/standin.toml", format!("{recipe}\n[[patch]]\nfile = \"x.patch\"\nreason = \"r\"\n"));
    build(&w, &[])
        .exits(2)
        .says("x.patch does not apply")
        .says("a.txt: hunk 1 of 1: line 2: expected 'zwei', found 'two'");
}

fn spawn(w: &Workspace, more: &[&str]) -> Child {
    command(w, more).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < Duration::from_secs(900), "{what} did not happen");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// As after `cargo build`, while what was started before it compiles for hours.
#[test]
#[cfg(target_os = "linux")]
fn a_build_goes_on_when_its_own_program_is_replaced() {
    let w = workspace(&slow_files("replaced"));
    let work = work_folder(&w);
    let program = w.path().join("torchmill");
    std::fs::copy(env!("CARGO_BIN_EXE_torchmill"), &program).unwrap();
    let usual = command(&w, &["--jobs", "1", "--no-compiler-cache"]);
    let mut build = std::process::Command::new(&program);
    build.args(usual.get_args()).current_dir(w.path());
    build.envs(usual.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let child = build.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for("an object", || !compiled(&work).is_empty());
    std::fs::remove_file(&program).unwrap();
    std::fs::write(&program, "another one").unwrap();
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

/// A stand-in whose compile takes a while: each filler needs about a second.
fn slow_files(tag: &str) -> std::collections::BTreeMap<String, String> {
    let mut f = fresh_files();
    for i in 0..6 {
        let text = format!(
            "#include <regex>\n#include <iostream>\n#include <map>\n// {tag}\nbool g{i}(const std::string& s) {{ return std::regex_match(s, std::regex(\"a{i}+\")); }}\n"
        );
        f.insert(format!("fill/f{i}.cpp"), text);
    }
    f
}

fn compiled(work: &Path) -> Vec<String> {
    let log = std::fs::read_to_string(work.join("src/build/.ninja_log")).unwrap_or_default();
    log.lines()
        .filter(|l| l.contains("fill/f") && l.contains(".cpp.o"))
        .map(|l| l.split('\t').nth(3).unwrap().to_owned())
        .collect()
}

#[test]
fn a_build_that_was_killed_goes_on_without_recompiling_what_was_done() {
    let w = workspace(&slow_files("kill -9"));
    let work = work_folder(&w);
    let mut child = spawn(&w, &["--jobs", "1", "--no-compiler-cache"]);
    wait_for("two objects", || compiled(&work).len() >= 2);
    child.kill().unwrap();
    child.wait().unwrap();
    let before = compiled(&work);
    assert!((2..6).contains(&before.len()), "{before:?}");
    let stamps: Vec<_> =
        before.iter().map(|o| std::fs::metadata(work.join("src/build").join(o)).unwrap().modified().unwrap()).collect();
    // The kernel ends ninja with its parent: nothing of the dead build writes any more.
    wait_for("the end of ninja", || !running_in(&work));
    build(&w, &["--jobs", "1", "--no-compiler-cache"]).exits(0);
    assert_eq!(compiled(&work).len(), 6);
    for (object, stamp) in before.iter().zip(stamps) {
        assert_eq!(
            std::fs::metadata(work.join("src/build").join(object)).unwrap().modified().unwrap(),
            stamp,
            "{object} was compiled again"
        );
    }
}

/// Whether any process works in this folder.
fn running_in(work: &Path) -> bool {
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .any(|p| std::fs::read_link(p.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(work)))
}

#[test]
fn ctrl_c_stops_all_children_and_the_next_run_goes_on() {
    let w = workspace(&slow_files("ctrl-c"));
    let work = work_folder(&w);
    let mut child = spawn(&w, &["--jobs", "1", "--no-compiler-cache"]);
    wait_for("an object", || !compiled(&work).is_empty());
    std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{said}");
    assert!(said.contains("stopped on request") && said.contains("goes on where it stopped"), "{said}");
    assert!(!running_in(&work), "a child was left behind");
    build(&w, &[]).exits(0);
}

#[test]
fn a_second_build_of_the_same_thing_waits_and_says_for_whom() {
    let w = workspace(&slow_files("two at once"));
    let work = work_folder(&w);
    let mut first = spawn(&w, &["--jobs", "1", "--no-compiler-cache"]);
    wait_for("an object", || !compiled(&work).is_empty());
    let second = build(&w, &[]).exits(0).says("waiting for process");
    assert!(second.stderr.contains(&first.id().to_string()), "{}", second.stderr);
    assert!(first.wait().unwrap().success());
    assert!(!second.stderr.contains("» compile"), "{}", second.stderr);
}

#[test]
#[ignore = "needs network namespaces"]
fn the_build_cannot_reach_the_network() {
    assert!(torchmill::platform::sandbox_supported(), "this machine cannot make network namespaces");
    let server = Server::start([("/x", Answer::Ok(b"x".to_vec()))]);
    let mut f = files();
    f.get_mut("CMakeLists.txt").unwrap().push_str(&format!("file(DOWNLOAD {}/x ${{CMAKE_BINARY_DIR}}/x STATUS s)\nlist(GET s 0 code)\nif(code EQUAL 0)\n  message(FATAL_ERROR \"downloaded\")\nendif()\n", server.url));
    let w = workspace(&f);
    build(&w, &[]).exits(0);
    assert!(server.requests.lock().unwrap().is_empty());
}

/// As where CI keeps its store in the checkout: oneDNN's list file asks for the commit, which then was in its objects.
#[test]
fn a_build_is_of_no_repository_that_lies_around_its_store() {
    let mut f = files();
    f.get_mut("CMakeLists.txt").unwrap().push_str(
        "execute_process(COMMAND git log -1 --format=%H WORKING_DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR} RESULT_VARIABLE result \
         OUTPUT_VARIABLE commit ERROR_QUIET)\nif(result EQUAL 0)\n  message(FATAL_ERROR \"this is ${commit}\")\nendif()\n",
    );
    let mut w = workspace(&f);
    own_store(&mut w);
    let git = |args: &[&str]| {
        let mut git = std::process::Command::new("git");
        let who = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.com"];
        git.args(who).args(args).current_dir(&w.store).output().unwrap().status.success()
    };
    assert!(git(&["init", "-q", ".."]) && git(&["commit", "-q", "--allow-empty", "-m", "ours"]));
    assert!(git(&["log", "-1"]), "the store is in a repository");
    w.run(&["build-torch", "--recipe", "standin", "--until", "configure"]).exits(0);
}

#[test]
#[ignore = "needs ccache"]
fn the_compiler_cache_hits_across_build_folders() {
    let mut w = workspace(&files());
    own_store(&mut w);
    build(&w, &[]).exits(0);
    let ccache = |w: &Workspace| {
        let out = std::process::Command::new("ccache")
            .arg("--print-stats")
            .env("CCACHE_DIR", w.store.join("v1/cache/ccache"))
            .env("CCACHE_CONFIGPATH", "/dev/null")
            .output();
        out.ok().map(|o| String::from_utf8_lossy(&o.stdout).into_owned())
    };
    let before = ccache(&w).filter(|s| s.contains("cache_miss")).expect("ccache");
    let number =
        |s: &str, name: &str| s.lines().find_map(|l| l.strip_prefix(name)?.trim().parse::<u64>().ok()).unwrap_or(0);
    let recipe = std::fs::read_to_string(w.path().join("recipes/standin.toml")).unwrap();
    w.write("recipes/standin.toml", recipe.replace("local = \"standin\"", "local = \"another\""));
    build(&w, &[]).exits(0);
    let after = ccache(&w).unwrap();
    assert_eq!(number(&after, "cache_miss"), number(&before, "cache_miss"), "{after}");
    assert!(number(&after, "direct_cache_hit") >= 8, "{after}");
}

#[test]
fn too_little_disk_space_is_said_before_anything_is_done() {
    let w = workspace_with(&fresh_files(), |r| r.replace("disk = 64", "disk = 900000000"));
    build(&w, &[]).exits(3).says("MiB free; a build of standin needs about 900000000 MiB");
    // What comes before compile takes less.
    w.run(&["build-torch", "--recipe", "standin", "--until", "canary"]).exits(3).says("needs about 300000000 MiB");
}

#[test]
fn what_a_build_has_taken_already_is_not_asked_for_again() {
    // 12 TiB: more than a disk has, and less than a file system lets a file of holes claim.
    let w = workspace_with(&fresh_files(), |r| r.replace("disk = 64", "disk = 12582912"));
    build(&w, &[]).exits(3).says("needs about 12582912 MiB");
    w.run(&["build-torch", "--recipe", "standin", "--until", "canary"]).exits(3).says("needs about 4194304 MiB");
    let work = work_folder(&w);
    std::fs::create_dir_all(&work).unwrap();
    std::fs::File::create(work.join("objects")).unwrap().set_len((12_582_912 - 64) << 20).unwrap();
    build(&w, &[]).exits(0);
}

#[test]
fn a_store_that_cannot_be_written_is_named() {
    let mut w = workspace(&files());
    w.store = w.write("a-file", "not a folder");
    build(&w, &[]).exits(2).says("is no folder").says("--store DIR");
    w.store = w.store.join("store");
    build(&w, &[]).exits(3).says("cannot be written").says("--store DIR");
}

#[test]
fn a_missing_or_too_old_compiler_is_named() {
    let w = workspace(&files());
    let mut c = command(&w, &[]);
    c.env("CXX", "no-such-compiler");
    let ran = Ran::of(&mut c, w.path()).exits(3).says("no C++ compiler").says("apt-get install g++");
    ran.says("CXX=no-such-compiler names no C++ compiler of this machine").says("or run it without CXX");
    let mut c = command(&w, &[]);
    c.env("CC", "ccache gcc");
    Ran::of(&mut c, w.path()).exits(3).says("CC=ccache gcc names no C compiler").says("name the compiler alone");
    let w = workspace_with(&files(), |r| format!("{r}\n[toolchain]\ngcc = \">=99\"\nclang = \">=99\"\n"));
    build(&w, &[]).exits(3).says("the recipe demands").says(">=99");
}

#[test]
fn a_compiler_that_is_too_new_is_named_before_anything_is_built() {
    let w = workspace_with(&fresh_files(), |r| format!("{r}\n[toolchain]\ngcc = \"<1\"\nclang = \"<1\"\n"));
    let ran = build(&w, &[]).exits(3).says("this one is too new").says("install an older");
    assert!(!ran.stderr.contains("» "), "something was begun:\n{}", ran.stderr);
    // A plan says it as well.
    w.run(&["build-torch", "--recipe", "standin", "--dry-run"]).exits(3).says("this one is too new");
}

#[test]
fn a_python_that_does_not_fit_or_has_no_headers_is_named() {
    let w = workspace_with(&files(), |r| r.replace("requires = \">=3.9,<3.14\"", "requires = \">=3.99\""));
    build(&w, &[]).exits(2).says("is for Python >=3.99");
    build(&w, &["--python", "no-such-python"]).exits(3).says("there is no Python 'no-such-python'");
    // An interpreter that answers, but whose headers are not there.
    let w = workspace_with(&files(), |r| format!("{r}\n"));
    let answer = r#"{"executable":"","version":"3.11.9","implementation":"cpython","include":"/nowhere","ext_suffix":".so","machine":"x86_64","free_threaded":false}"#;
    let fake = w.write("fake-python", format!("#!/bin/sh\necho '{answer}'\n"));
    std::process::Command::new("chmod").arg("+x").arg(&fake).status().unwrap();
    build(&w, &["--python", fake.to_str().unwrap()])
        .exits(3)
        .says("has no headers: /nowhere/Python.h does not exist")
        .says("python3.11-dev");
}

#[test]
#[ignore = "needs the right to mount a file system"]
fn a_disk_that_fills_up_leaves_nothing_half_written() {
    let mut w = workspace(&files());
    Ran::of(&mut w.xtask(&["fetch", "--recipe", "standin"]), w.path()).exits(0);
    let mount = w.path().join("small");
    let disk = crate::support::SmallDisk::mount(&mount, "190m");
    w.store = mount.clone();
    // The downloads alone fit; what is unpacked from them does not.
    let ran = build(&w, &[]);
    assert_eq!(ran.code, Some(3), "{}", ran.stderr);
    assert!(ran.stderr.contains("No space left") || ran.stderr.contains("disk is full"), "{}", ran.stderr);
    for stage in std::fs::read_dir(mount.join("v1/stages")).into_iter().flatten().flatten() {
        for result in std::fs::read_dir(stage.path()).unwrap().flatten() {
            let name = result.file_name().into_string().unwrap();
            assert!(!name.starts_with('.'), "{name} was left half made");
            assert!(result.path().join("stage.json").is_file(), "{name} stands there without being finished");
        }
    }
    disk.grow("2g");
    build(&w, &[]).exits(0);
}

#[test]
fn a_store_whose_path_a_compiler_cannot_be_given_is_refused_and_one_in_another_script_is_built_in() {
    let mut w = workspace(&fresh_files());
    own_store(&mut w);
    let (plain, spaces) = (w.path().join("größer-als-日本"), w.path().join("ein Ordner"));
    std::fs::rename(&w.store, &plain).unwrap();
    w.store = spaces;
    build(&w, &[]).exits(2).says("has the character ' '").says("--store DIR");
    w.store = plain;
    build(&w, &["--no-compiler-cache"]).exits(0);
    artifact(&w, "bundle", ".tar.gz");
}

/// The stand-in made of these files, with a prefix of one file, and with `more` in its recipe.
fn workspace_with_prefix(
    files: &std::collections::BTreeMap<String, String>,
    name: &str,
    (path, text): (&str, &str),
    more: &str,
) -> Workspace {
    let bytes = crate::support::tar(name, &[(path.to_owned(), text.to_owned())].into());
    let source = format!(
        "[[source]]\nname = \"{name}\"\ncoordinates = [\"file:{name}.tar\"]\n\
         into = [{{ prefix = \"{name}\", strip = 1 }}]\nlicense = \"MIT\"\nlinked = false\n"
    );
    let w = workspace_with(files, |recipe| recipe.replace("[limits]", &format!("{more}[limits]")) + &source);
    w.write(&format!("{name}.tar"), &bytes);
    let lock_path = w.path().join("recipes/standin.lock");
    let mut lock: torchmill::recipe::Lock = toml::from_str(&std::fs::read_to_string(&lock_path).unwrap()).unwrap();
    let locked = torchmill::recipe::Locked { sha256: sha256(&bytes), size: bytes.len() as u64, coordinate: None };
    lock.source.insert(name.to_owned(), locked);
    std::fs::write(&lock_path, lock.to_toml("standin").unwrap()).unwrap();
    w
}

#[test]
fn what_a_list_file_would_download_is_named_by_a_prefix() {
    // As NNPACK's does with six: it downloads what no variable names.
    let mut f = files();
    f.get_mut("CMakeLists.txt").unwrap().push_str(
        "if(NOT DEFINED PYTHON_SIX_SOURCE_DIR OR NOT EXISTS \"${PYTHON_SIX_SOURCE_DIR}/six.py\")\n  \
         message(FATAL_ERROR \"six would be downloaded, '${PYTHON_SIX_SOURCE_DIR}' has none\")\nendif()\n",
    );
    let more = "[cmake]\nPYTHON_SIX_SOURCE_DIR = \"{prefix:six}\"\n";
    let w = workspace_with_prefix(&f, "six", ("six.py", "moves = {}\n"), more);
    w.run(&["build-torch", "--recipe", "standin", "--until", "configure"]).exits(0);
}

#[test]
fn prefix_paths_and_cmake_values_reach_a_version_whose_setup_py_hands_nothing_to_cmake() {
    let mut f = crate::standin::files_of_2_12();
    f.get_mut("CMakeLists.txt").unwrap().push_str(
        r#"find_package(marked CONFIG REQUIRED)
list(GET CMAKE_PREFIX_PATH 0 first)
add_subdirectory(old)
set(got "${first},${marked_WORD},${A_TEXT},${A_SWITCH},${OF_A_POLICY}")
if(NOT got MATCHES "/deps/marked,of the prefix,a text,ON,NEW$")
  message(FATAL_ERROR "what the recipe says ended as '${got}'")
endif()
"#,
    );
    // Its CMake is older than the policy, which is as the recipe says and not set otherwise.
    let old = "cmake_minimum_required(VERSION 3.12)\ncmake_policy(GET CMP0077 found)\n\
               set(OF_A_POLICY \"${found}\" PARENT_SCOPE)\n";
    f.insert("old/CMakeLists.txt".into(), old.into());
    let more = "[settings]\nCMAKE_PREFIX_PATH = \"{prefix:marked}\"\n\
                [cmake]\nA_TEXT = \"a text\"\nA_SWITCH = true\nCMAKE_POLICY_DEFAULT_CMP0077 = \"NEW\"\n";
    let marked = ("lib/cmake/marked/markedConfig.cmake", "set(marked_WORD \"of the prefix\")\n");
    let w = workspace_with_prefix(&f, "marked", marked, more);
    w.run(&["build-torch", "--recipe", "standin", "--until", "configure"]).exits(0);
}
