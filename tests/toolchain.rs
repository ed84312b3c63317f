//! A toolchain of locked packages: what a recipe says of it, what it is made of, and what is refused before the build.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use torchmill::recipe::{Lock, Locked, Source};

use crate::pipeline::{artifact, own_store};
use crate::standin::{files, work_folder, workspace_with};
use crate::support::{Ran, Server, Workspace, recipe, root, sha256, tar};

/// The loader of the stand-in: it runs what it is given, as the real one does.
const LOADER: &str = "#!/bin/sh\n[ \"$1 $2\" = '--inhibit-cache --library-path' ] || exit 9\nname=$5 program=$6\nshift 6\n\
                      NAME=$name exec /bin/sh \"$program\" \"$@\"\n";

/// The compiler of the stand-in: it notes what it was told, and makes a program that says what the trial says.
/// `{header}` is what it claims to have read.
const CLANG: &str = r#"top=${NAME%/bin/*}
[ "$1" = -no-canonical-prefixes ] && [ "$2" = --no-default-config ] && [ "$3" = "--config=$top/clang.cfg" ] || exit 8
[ -z "$(ls /usr/include)" ] || { echo 'the headers of the machine are there'; exit 7; }
shift 3
case $1 in
--version) echo 'Debian clang version {version} (3~deb12u1)'; exit ;;
-Wl,--trace) echo "$top/sysroot/usr/lib/crt1.o"; echo "$top/sysroot/usr/lib/libc.a(exit.o)" ;;
-print-file-name=*) echo "$top/sysroot/usr/lib/${1#*=}"; exit ;;
-shared) : > "$5"; exit ;;
*) rules=$5; echo "trial.o: $7 {header}" > "$rules" ;;
esac
for last; do :; done
printf '#!/bin/sh\necho "{\\"compiler\\": \\"a stand-in\\"}"\n' > "$last"
chmod +x "$last"
"#;

/// The files of a package that stands for all of a toolchain's.
fn package(version: &str, header: &str) -> BTreeMap<String, String> {
    let clang = CLANG.replace("{version}", version).replace("{header}", header);
    let mut files: BTreeMap<String, String> = [
        (loader(), LOADER),
        ("host/bin/clang", &clang),
        ("lib/clang/include/stddef.h", ""),
        ("sysroot/usr/include/stdio.h", ""),
        ("sysroot/usr/lib/crt1.o", ""),
        ("sysroot/usr/lib/libc.a", ""),
    ]
    .map(|(name, text)| (name.to_owned(), text.to_owned()))
    .into();
    for tool in ["lld", "llvm-ar", "llvm-nm", "llvm-objcopy", "llvm-objdump", "llvm-readobj"] {
        files.insert(format!("host/bin/{tool}"), "exit 0\n".into());
    }
    files
}

const HERE: &str = std::env::consts::ARCH;

fn loader() -> &'static str {
    if HERE == "aarch64" { "host/lib/ld-linux-aarch64.so.1" } else { "host/lib/ld-linux-x86-64.so.2" }
}

/// What a recipe says of a toolchain that is the source `compiler`, for `machine`.
fn locked(recipe: &str, machine: &str) -> String {
    let said = "[toolchain]\nfrom = \"locked\"\nclang = \"==19.1.7\"\n[features]";
    format!(
        "{}[[source]]\nname = \"compiler\"\ncoordinates = [\"file:compiler.tar\"]\nmachine = \"{machine}\"\n\
         into = [{{ prefix = \"toolchain\", strip = 1 }}]\nlicense = \"MIT\"\nlinked = false\n",
        recipe.replace("[features]", said)
    )
}

/// A workspace whose recipe `standin` brings the toolchain in `package`, with a store of its own.
fn workspace(package: &BTreeMap<String, String>) -> Workspace {
    let mut w = workspace_with(&files(), |r| locked(&r, HERE));
    let bytes = tar("compiler", package);
    w.write("compiler.tar", &bytes);
    lock(&w, &bytes);
    own_store(&mut w);
    w
}

/// The same, where the recipe changes afterwards.
fn changed(w: &Workspace, edit: impl Fn(&str) -> String) {
    let path = w.path().join("recipes/standin.toml");
    std::fs::write(&path, edit(&std::fs::read_to_string(&path).unwrap())).unwrap();
    lock(w, &std::fs::read(w.path().join("compiler.tar")).unwrap());
}

/// Writes the digest of the toolchain into the lock.
fn lock(w: &Workspace, package: &[u8]) {
    let path = w.path().join("recipes/standin.lock");
    let recipe = torchmill::recipe::Workspace { root: w.path().to_owned() }.load("standin").unwrap();
    let mut lock: Lock = toml::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    let locked = Locked { sha256: sha256(package), size: package.len() as u64, coordinate: None };
    lock.source.insert("compiler".into(), locked);
    lock.recipe = Lock::recipe_digest(&recipe);
    std::fs::write(path, lock.to_toml("standin").unwrap()).unwrap();
}

fn until(stage: &str) -> [&str; 5] {
    ["build-torch", "--recipe", "standin", "--until", stage]
}

fn keys(w: &Workspace) -> BTreeMap<String, String> {
    let ran = w.run(&["build-torch", "--recipe", "standin", "--dry-run", "--json"]).exits(0);
    let json: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let stages = json["plan"]["stages"].as_array().unwrap().iter();
    stages.filter_map(|s| Some((s["stage"].as_str()?.to_owned(), s["key"].as_str()?.to_owned()))).collect()
}

// --- what a recipe says --------------------------------------------------------------------------

#[test]
fn a_recipe_says_where_its_toolchain_comes_from_and_the_machine_is_what_it_is_if_it_does_not() {
    let w = Workspace::new();
    w.write("recipes/base.toml", recipe(""));
    w.write("recipes/own.toml", "schema = 1\nextends = \"base\"\n[toolchain]\nfrom = \"machine\"\n");
    w.write("recipes/locked.toml", locked(&recipe(""), "x86_64"));
    w.write("recipes/back.toml", "schema = 1\nextends = \"locked\"\n[toolchain]\nfrom = \"machine\"\n");
    let workspace = torchmill::recipe::Workspace { root: w.path().to_owned() };
    let loaded = |name: &str| workspace.load(name).unwrap();
    assert!(loaded("locked").toolchain.is_locked());
    for machine in ["base", "own", "back"] {
        assert!(!loaded(machine).toolchain.is_locked(), "{machine}");
    }
    // What an artifact carries of its recipe is the same whether the usual is said or not.
    assert_eq!(loaded("own").normal, loaded("base").normal);
    assert!(loaded("locked").normal.contains("from = \"locked\""), "{}", loaded("locked").normal);
}

#[test]
fn a_locked_toolchain_that_contradicts_itself_is_refused() {
    let w = Workspace::new();
    let refused = |text: String, says: &str| {
        w.write("recipes/x.toml", text);
        w.run(&["lock", "--check", "--recipe", "x"]).exits(2).says(says);
    };
    let good = locked(&recipe(""), "x86_64");
    refused(good.replace("\"locked\"", "\"somewhere\""), "unknown variant `somewhere`, expected `machine` or `locked`");
    refused(good.replace("\"==19.1.7\"", "\">=16\""), "toolchain.clang says '>=16': its packages have one version");
    refused(good.replace("clang = \"==19.1.7\"\n", ""), "toolchain.clang says nothing");
    refused(good.replace("\"toolchain\"", "\"blas\""), "and no source goes into the prefix 'toolchain'");
    refused(good.replace("schema = 1\n", "schema = 1\nsystem = \"windows\"\n"), "and the recipe is for Windows");
}

#[test]
fn the_recipe_of_the_repository_names_one_clang_and_all_of_its_packages_by_digest() {
    let workspace = torchmill::recipe::Workspace { root: root() };
    let name = "torch-2.12.1-cpu-clang";
    let recipe = workspace.load(name).unwrap();
    let lock = Lock::load(&recipe, &workspace.recipe_path(name)).unwrap();
    assert!(recipe.toolchain.is_locked());
    let packages: Vec<_> = recipe.source.iter().filter(|s| s.in_prefix("toolchain").next().is_some()).collect();
    assert!(packages.len() > 20, "{}", packages.len());
    for package in packages {
        assert!(lock.source.contains_key(&package.name), "{}", package.name);
        // A machine that has none of it says so before the build.
        assert_eq!(package.machine.as_deref(), Some("x86_64"), "{}", package.name);
    }
}

#[test]
fn a_program_that_asks_for_openmp_by_any_of_its_names_is_linked() {
    let workspace = torchmill::recipe::Workspace { root: root() };
    let recipe = workspace.load("torch-2.12.1-cpu-clang").unwrap();
    let openmp = recipe.source.iter().find(|s| s.name == "openmp").unwrap();
    let alias = &openmp.in_prefix("toolchain").next().unwrap().alias;
    // Clang's, the one that FindMKL.cmake looks for, and the one of torch-sys' build.rs: `cargo:rustc-link-lib=gomp`.
    for name in ["libomp.so", "libiomp5.so", "libgomp.so"] {
        let of = alias.get(&format!("sysroot/usr/lib/x86_64-linux-gnu/{name}")).map(String::as_str);
        assert_eq!(of, Some("sysroot/usr/lib/x86_64-linux-gnu/libomp.so.5"), "{name}");
    }
}

// --- what it is made of --------------------------------------------------------------------------

#[test]
fn packages_become_a_toolchain_that_is_tried_and_a_second_run_does_nothing() {
    let w = workspace(&package("19.1.7", "$top/sysroot/usr/include/stdio.h"));
    w.run(&until("toolchain")).exits(0);
    let folder = w.store.join("v1/stages/toolchain");
    let result = std::fs::read_dir(&folder).unwrap().flatten().next().unwrap().path();
    let record = std::fs::read_to_string(result.join("stage.json")).unwrap();
    let record: serde_json::Value = serde_json::from_str(&record).unwrap();
    assert_eq!(record["record"]["tried"], serde_json::json!({ "compiler": "a stand-in", "files": 3 }));
    let settings = std::fs::read_to_string(result.join("out/clang.cfg")).unwrap();
    for told in
        ["--sysroot=<CFGDIR>/sysroot\n", "-resource-dir=<CFGDIR>/lib/clang\n", "--ld-path=<CFGDIR>/bin/ld.lld\n"]
    {
        assert!(settings.contains(told), "{settings}");
    }
    // Nothing in it names the place that it stands in.
    for entry in walkdir::WalkDir::new(result.join("out")).into_iter().flatten().filter(|e| e.file_type().is_file()) {
        let bytes = std::fs::read(entry.path()).unwrap();
        let here = w.path().to_str().unwrap().as_bytes();
        assert!(memchr::memmem::find(&bytes, here).is_none(), "{}", entry.path().display());
    }
    let again = w.run(&until("toolchain")).exits(0);
    assert!(again.stderr.contains("✓ toolchain (in the store)"), "{}", again.stderr);
}

/// What stood in the way: the compiler is called before it is there, or sees the machine's headers.
#[track_caller]
fn is_there_and_sees_nothing(ran: &Ran) {
    assert!(ran.stderr.contains("✓ toolchain"), "{}", ran.stderr);
    for wrong in ["cannot run", "makes another system", "is not in the store", "the headers of the machine are there"] {
        assert!(!ran.stderr.contains(wrong), "{wrong}: {}", ran.stderr);
    }
}

#[test]
fn what_varies_a_second_build_is_compiled_by_the_toolchain_which_is_made_first() {
    let w = workspace(&package("19.1.7", "$top/sysroot/usr/include/stdio.h"));
    // The stand-in compiles no libuv: that both builds begin is all that is seen here.
    let ran = w.run(&["repro", "--recipe", "standin", "--until", "libuv"]);
    is_there_and_sees_nothing(&ran);
    assert!(w.path().join("own-store-elsewhere/in/a/folder/of/another/length/variation/variation.so").exists());
}

#[test]
fn uvstore_is_compiled_by_the_toolchain_which_is_fetched_and_made_for_it() {
    let w = workspace(&package("19.1.7", "$top/sysroot/usr/include/stdio.h"));
    changed(&w, |r| {
        format!(
            "{r}[[source]]\nname = \"fmt\"\ncoordinates = [\"file:compiler.tar\"]\nlicense = \"MIT\"\nlinked = false\n\
             into = [{{ tree = \"third_party/fmt\", strip = 1 }}]\n"
        )
    });
    let path = w.path().join("recipes/standin.lock");
    let mut lock: Lock = toml::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    let same = lock.source["compiler"].clone();
    lock.source.insert("fmt".into(), same);
    std::fs::write(path, lock.to_toml("standin").unwrap()).unwrap();
    // The stand-in compiles nothing: it is seen that it was asked to.
    let ran = w.run(&["uvstore", "--recipe", "standin", "--out", "dist"]);
    is_there_and_sees_nothing(&ran);
    assert!(ran.stderr.contains("uvstore"), "{}", ran.stderr);
}

#[test]
fn keys_are_made_of_the_packages_and_of_nothing_that_this_machine_has() {
    let one = workspace(&package("19.1.7", ""));
    let mut other = workspace(&package("19.1.7", ""));
    other.store = other.path().join("another/store");
    let first = keys(&one);
    assert!(
        first.contains_key("toolchain") && first.contains_key("libuv") && first.contains_key("configure"),
        "{first:?}"
    );
    assert_eq!(first, keys(&other), "another store, another folder");
    // A machine without any compiler.
    let mut bare = one.xtask(&["build-torch", "--recipe", "standin", "--dry-run", "--json"]);
    let python = Ran::of(
        std::process::Command::new("python3").args(["-c", "import sys; print(sys.executable)"]),
        Path::new("-"),
    );
    bare.args(["--python", python.stdout.trim()]).env("PATH", "/nowhere");
    let ran = Ran::of(&mut bare, one.path()).exits(0);
    assert!(ran.stdout.contains(&first["configure"]), "{}", ran.stdout);
    // Another package of the same name and version.
    let changed = workspace(&package("19.1.7", " "));
    for stage in ["toolchain", "libuv", "configure"] {
        assert_ne!(keys(&changed)[stage], first[stage], "{stage}");
    }
}

#[test]
fn packages_of_another_version_are_refused() {
    let w = workspace(&package("19.1.6", ""));
    w.run(&until("toolchain"))
        .exits(2)
        .says("the packages are 'Debian clang version 19.1.6 (3~deb12u1)'; the recipe says Clang 19.1.7");
}

#[test]
fn a_toolchain_that_reads_the_machine_is_refused() {
    let w = workspace(&package("19.1.7", "/etc/hostname"));
    w.run(&until("toolchain"))
        .exits(3)
        .says("reads /etc/hostname of this machine")
        .says("the package that has this file");
}

#[test]
fn packages_that_lack_a_part_are_refused_by_its_name() {
    for part in ["host/bin/lld", loader(), "sysroot/usr/include/stdio.h"] {
        let mut package = package("19.1.7", "");
        package.remove(part).unwrap();
        let w = workspace(&package);
        let folder = part.trim_end_matches("/stdio.h");
        w.run(&until("toolchain")).exits(2).says(&format!("the packages of the toolchain have no {folder}"));
    }
}

/// The sources of the repository's toolchain, as a recipe has them, and their digests.
fn real_packages() -> (String, BTreeMap<String, Locked>) {
    let workspace = torchmill::recipe::Workspace { root: root() };
    let name = "torch-2.12.1-cpu-clang";
    let recipe = workspace.load(name).unwrap();
    let lock = Lock::load(&recipe, &workspace.recipe_path(name)).unwrap();
    let of_toolchain = |s: &Source| s.in_prefix("toolchain").next().is_some();
    let source: Vec<Source> = recipe.source.into_iter().filter(of_toolchain).collect();
    let locked = source.iter().map(|s| (s.name.clone(), lock.source[&s.name].clone())).collect();
    (toml::to_string(&BTreeMap::from([("source", source)])).unwrap(), locked)
}

/// Has the stand-in's recipe bring the repository's toolchain.
pub fn bring_real_packages(w: &Workspace) {
    let (sources, digests) = real_packages();
    let [recipe, lock] = ["toml", "lock"].map(|kind| w.path().join("recipes/standin").with_extension(kind));
    let said = "[toolchain]\nfrom = \"locked\"\nclang = \"==19.1.7\"\n[features]";
    let text = std::fs::read_to_string(&recipe).unwrap();
    assert!(text.contains("[features]") && !text.contains("[toolchain]"));
    std::fs::write(recipe, format!("{}\n{sources}", text.replace("[features]", said))).unwrap();
    let mut locked: Lock = toml::from_str(&std::fs::read_to_string(&lock).unwrap()).unwrap();
    locked.recipe =
        Lock::recipe_digest(&torchmill::recipe::Workspace { root: w.path().into() }.load("standin").unwrap());
    locked.source.extend(digests);
    std::fs::write(lock, locked.to_toml("standin").unwrap()).unwrap();
}

#[test]
#[ignore = "needs user namespaces and 93 MB of Debian's packages"]
fn the_real_packages_compile_the_same_wheel_in_two_stores_and_read_nothing_of_the_machine() {
    let wheel = |store: &str| {
        let mut w = workspace_with(&files(), |r| r);
        bring_real_packages(&w);
        own_store(&mut w);
        std::fs::create_dir_all(w.path().join(store).parent().unwrap()).unwrap();
        std::fs::rename(&w.store, w.path().join(store)).unwrap();
        w.store = w.path().join(store);
        let mut command = w.xtask(&[&until("wheel")[..], &["--no-compiler-cache"]].concat());
        Ran::of(command.env_remove("CC").env_remove("CXX"), w.path())
            .exits(0)
            .says("canary: a libuv store of this build served 8 clients");
        let build = work_folder(&w).join("src/build");
        let ninja = work_folder(&w).join("deps/buildenv/bin/ninja");
        let read = Ran::of(std::process::Command::new(ninja).args(["-t", "deps"]).current_dir(&build), Path::new("-"));
        let read: Vec<&str> = read.stdout.lines().filter_map(|line| line.strip_prefix("    /")).collect();
        assert!(read.len() > 500, "{}", read.len());
        let here = w.path().to_str().unwrap().trim_start_matches('/');
        let python = Ran::of(
            std::process::Command::new("python3")
                .args(["-c", "import sysconfig; print(sysconfig.get_paths()['include'])"]),
            Path::new("-"),
        );
        let python = python.stdout.trim().trim_start_matches('/');
        for header in read {
            assert!(header.starts_with(here) || header.starts_with(python), "/{header}");
        }
        let mut shell = w.xtask(&["shell", "--recipe", "standin", "--", "ls", "/usr/include"]);
        let seen = Ran::of(shell.env_remove("CC").env_remove("CXX"), w.path()).exits(0).stdout;
        assert_eq!(seen, "", "a person's shell sees what the build sees");
        std::fs::read(artifact(&w, "wheel", ".whl")).unwrap()
    };
    let (one, other) = (wheel("one-store"), wheel("a/store/elsewhere"));
    assert_eq!(sha256(&one), sha256(&other));
    assert!(memchr::memmem::find(&one, b"one-store").is_none());
}

/// What another system's interpreter needs beside a minimal Debian: libraries that this machine's Python is linked with.
const LIBRARIES: &[&str] =
    &["libssl3t64", "libffi8", "zlib1g", "libbz2-1.0", "liblzma5", "libsqlite3-0", "make", "perl"];

#[test]
#[ignore = "takes too much: root, debootstrap and a Debian that is another one than this"]
fn another_debian_makes_the_same_libuv_with_the_locked_toolchain() {
    use crate::before_after::{debian, in_chroot, succeeds};
    let scratch = tempfile::tempdir().unwrap();
    let system = std::env::var_os("TORCHMILL_DEBIAN_SID").map_or_else(|| scratch.path().join("sid"), PathBuf::from);
    debian(&system, "sid");
    succeeds(in_chroot(&system, &["apt-get", "update", "-qq", "-o", "Acquire::Check-Valid-Until=false"]));
    succeeds(in_chroot(&system, &[&["apt-get", "install", "-qq", "-y"], LIBRARIES].concat()));
    let second = scratch.path().join("second");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_torchmill"));
    command.args(["repro", "--recipe", "torch-2.12.1-cpu-clang", "--until", "libuv", "--json", "--in"]);
    command.arg(&system).arg("--second").arg(&second).current_dir(root());
    let ran = Ran::of(&mut command, scratch.path()).exits(0);
    let json: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(json["same"], true, "{json}");
    assert!(json["changed"][0][1].as_str().unwrap().contains("Debian"), "{json}");
}

/// Source of a Python for a system whose own is too old, and its digest.
const PYTHON: (&str, &str) = (
    "main/p/python3.11/python3.11_3.11.2.orig.tar.gz",
    "2411c74bda5bbcfcddaf4531f66d1adc73f247f529aee981b029513aefdbf849",
);

/// The wheel is `torch-*+cpu.clang.libuv-cp311-*` of `dist/`, or of the folder `TORCHMILL_DIST`; the root folder is kept
/// where `TORCHMILL_DEBIAN_BULLSEYE` says so.
#[test]
#[ignore = "takes too much: root, debootstrap, a Python that is compiled for it, and a wheel in dist"]
fn the_wheel_runs_where_the_c_library_is_the_oldest_that_its_tag_names() {
    use crate::before_after::{debian, in_chroot, succeeds};
    let dist = std::env::var_os("TORCHMILL_DIST").map_or_else(|| root().join("dist"), PathBuf::from);
    let is_it = |name: &str| name.contains("+cpu.clang.libuv-cp311-") && name.ends_with("_x86_64.whl");
    let names = std::fs::read_dir(&dist).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let name = names.into_iter().find(|name| is_it(name)).expect("a wheel of torch-2.12.1-cpu-clang for Python 3.11");
    assert!(name.contains("-manylinux_2_31_x86_64."), "{name}");

    let scratch = tempfile::tempdir().unwrap();
    let system =
        std::env::var_os("TORCHMILL_DEBIAN_BULLSEYE").map_or_else(|| scratch.path().join("bullseye"), PathBuf::from);
    debian(&system, "bullseye");
    let python = "/opt/python/bin/python3.11";
    if !system.join(&python[1..]).exists() {
        let packages = ["gcc", "make", "libffi-dev", "zlib1g-dev", "libssl-dev", "libsqlite3-dev", "libbz2-dev"];
        succeeds(in_chroot(&system, &["apt-get", "update", "-qq"]));
        succeeds(in_chroot(&system, &[&["apt-get", "install", "-qq", "-y"], &packages[..]].concat()));
        let mirror = torchmill::source::debian::mirrors().unwrap().remove(0);
        let archive = system.join("python.tar.gz");
        let fetch = "import sys, urllib.request; urllib.request.urlretrieve(sys.argv[1], sys.argv[2])";
        let mut get = std::process::Command::new("python3");
        get.args(["-c", fetch, &format!("{}/pool/{}", mirror.trim_end_matches('/'), PYTHON.0)]).arg(&archive);
        Ran::of(&mut get, scratch.path()).exits(0);
        assert_eq!(sha256(&std::fs::read(archive).unwrap()), PYTHON.1);
        let make = "mkdir -p /python && tar -C /python --strip-components=1 -xf /python.tar.gz && cd /python \
                    && ./configure -q --prefix=/opt/python && make -s -j2 && make -s install";
        succeeds(in_chroot(&system, &["sh", "-c", make]));
    }
    let library = succeeds(in_chroot(&system, &["ldd", "--version"]));
    assert!(library.lines().next().unwrap().ends_with(" 2.31"), "{library}");

    // pip of that system takes the wheel by its tag; what torch needs comes from here, for the same tags.
    std::fs::copy(dist.join(&name), system.join(&name)).unwrap();
    let clean = ["-m", "pip", "install", "--no-index", "--no-deps", "--force-reinstall", "--disable-pip-version-check"];
    let installed = succeeds(in_chroot(&system, &[&[python], &clean[..], &[&*format!("/{name}")]].concat()));
    std::fs::remove_file(system.join(&name)).unwrap();
    let mut pip = std::process::Command::new("python3");
    pip.args(["-m", "pip", "install", "-q", "--disable-pip-version-check", "--only-binary=:all:", "--upgrade"]);
    pip.args(["--python-version=3.11", "--implementation=cp", "--target"]).arg(system.join("opt/needs"));
    for platform in ["manylinux_2_31", "manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014"] {
        pip.arg(format!("--platform={platform}_x86_64"));
    }
    pip.args(["numpy", "filelock", "typing-extensions", "networkx", "jinja2", "fsspec", "sympy"]);
    Ran::of(&mut pip, scratch.path()).exits(0);
    std::fs::copy(root().join("tests/scenarios/s2_train.py"), system.join("s2_train.py")).unwrap();
    let train = ["env", "PYTHONPATH=/opt/needs", python, "/s2_train.py"];
    let said = succeeds(in_chroot(&system, &train));
    let said: serde_json::Value = serde_json::from_str(said.lines().last().unwrap_or_default()).unwrap();
    assert_eq!((&said["libuv"], &said["ranks"]), (&true.into(), &2.into()), "{said}");

    println!("C library: {}", library.lines().next().unwrap());
    println!("pip: {}", installed.lines().last().unwrap_or_default());
    println!("s2_train.py: {said}");
}

// --- what is told before the build ---------------------------------------------------------------

#[test]
fn a_compiler_that_is_named_as_well_is_refused() {
    let w = workspace(&package("19.1.7", ""));
    for (name, value) in [("CC", "gcc-14"), ("CXX", "/opt/bin/clang++")] {
        let mut command = w.xtask(&until("libuv"));
        command.env_remove("CC").env_remove("CXX").env(name, value);
        let ran = Ran::of(&mut command, w.path()).exits(2);
        assert!(!ran.stderr.contains('»'), "nothing was begun: {}", ran.stderr);
        ran.says(&format!("{name}={value} names a compiler, and the recipe standin brings its own"))
            .says("env -u CC -u CXX");
    }
    // Set to nothing is not set.
    let mut command = w.xtask(&["build-torch", "--recipe", "standin", "--dry-run"]);
    Ran::of(command.env("CC", "").env("CXX", ""), w.path()).exits(0);
}

#[test]
fn a_second_build_on_another_system_needs_a_root_folder_and_a_compiler_of_its_own() {
    let w = workspace_with(&files(), |recipe| recipe);
    let system = w.path().join("system");
    std::fs::create_dir_all(system.join("usr/bin")).unwrap();
    let repro = ["repro", "--recipe", "standin", "--until", "libuv", "--in", system.to_str().unwrap()];
    w.run(&repro).exits(2).says("is no root folder: it has no usr/bin/env").says("debootstrap");
    std::fs::write(system.join("usr/bin/env"), "").unwrap();
    w.run(&repro).exits(2).says("standin compiles with this system's compiler").says("from = \"locked\"");
}

#[test]
fn a_machine_that_there_are_no_packages_for_is_told_which_there_are() {
    let other = if HERE == "x86_64" { "aarch64" } else { "x86_64" };
    let w = workspace(&package("19.1.7", ""));
    changed(&w, |r| r.replace(&format!("machine = \"{HERE}\""), &format!("machine = \"{other}\"")));
    let ran = w.run(&until("libuv")).exits(2);
    assert!(!ran.stderr.contains('»'), "nothing was begun: {}", ran.stderr);
    // Those that it has them for, and not all that it has locks of other things for: this one may be among those.
    ran.says(&format!("brings its own compiler, and has no packages of it for {HERE}"))
        .says(&format!("build on one that it has them for: {other}\n"));
}

#[test]
#[ignore = "needs user namespaces"]
fn a_kernel_that_cannot_hide_the_machines_headers_is_told_before_the_build() {
    let w = workspace(&package("19.1.7", ""));
    let inner = w.xtask(&until("libuv"));
    let mut command = std::process::Command::new("unshare");
    command.args(["--user", "--map-root-user", "sh", "-c"]);
    // In this namespace, and below it, no further namespace of mounts can be made.
    command.arg("echo 0 > /proc/sys/user/max_mnt_namespaces && exec \"$@\"").arg("sh").arg(inner.get_program());
    command.args(inner.get_args()).current_dir(w.path());
    command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let ran = Ran::of(&mut command, w.path()).exits(3);
    assert!(!ran.stderr.contains('»'), "nothing was begun: {}", ran.stderr);
    ran.says("is built without the headers of this machine, and this kernel cannot hide them")
        .says("max_user_namespaces")
        .says("kernel.apparmor_restrict_unprivileged_userns");
}

#[test]
fn a_package_that_its_pool_has_no_more_comes_from_the_next_coordinate_or_is_told_with_a_way_out() {
    let gone = "debian:main/l/llvm/clang_19.1.7-3_amd64.deb";
    let mirror = Server::start([]);
    let w = workspace(&package("19.1.7", ""));
    let digest = sha256(&std::fs::read(w.path().join("compiler.tar")).unwrap());
    let blob = w.store.join("v1/blobs").join(&digest[..2]).join(&digest);
    let run = |coordinates: &str| {
        std::fs::remove_file(&blob).unwrap();
        changed(&w, |r| {
            let (before, rest) = r.split_once("name = \"compiler\"\ncoordinates = [").unwrap();
            let (_, after) = rest.split_once(']').unwrap();
            format!("{before}name = \"compiler\"\ncoordinates = [{coordinates}]{after}")
        });
        let mut command = w.xtask(&until("toolchain"));
        Ran::of(command.env("TORCHMILL_DEBIAN_MIRROR", &mirror.url), w.path())
    };
    run(&format!("\"{gone}\", \"file:compiler.tar\"")).exits(0);
    std::fs::remove_dir_all(w.store.join("v1/stages/toolchain")).unwrap();
    let ran = run(&format!("\"{gone}\"")).exits(3);
    assert!(!ran.stderr.contains("» toolchain"), "nothing was built: {}", ran.stderr);
    ran.says(&format!("{gone}: ")).says("name a mirror that keeps old packages: TORCHMILL_DEBIAN_MIRROR");
}
