//! CUDA: what a recipe, a compiler, a driver or a toolkit that does not fit is told, before anything is
//! downloaded; compilers admitted by memory; and the real toolkit of the recipe, from its packages.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::support::{Ran, Workspace, root};

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
fn an_architecture_that_this_cuda_does_not_know_and_two_nccls_are_refused() {
    let w = copy_of_the_recipes();
    let path = w.path().join("recipes/torch-2.6.0-cu124-sm90.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("architectures = [\"9.0\"]", "architectures = [\"9.0\", \"12.0\"]")).unwrap();
    w.run(TOOLKIT)
        .exits(2)
        .says("torch-2.6.0-cu124-sm90.toml")
        .says("names '12.0', which CUDA 12.4 cannot compile for")
        .says("CUDA 13.2 knows it");
    // Compiled with one NCCL, run with another.
    let base = w.path().join("recipes/torch-2.6.0-cu124.toml");
    let whole = std::fs::read_to_string(&base).unwrap();
    std::fs::write(&base, whole.replace("'nvidia-nccl-cu12==2.21.5", "'nvidia-nccl-cu12==2.20.5")).unwrap();
    std::fs::write(&path, &text).unwrap();
    w.run(TOOLKIT).exits(2).says("the toolkit takes nvidia-nccl-cu12 2.21.5, and cuda.requires has 2.20.5");
    std::fs::write(&base, whole).unwrap();
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
    command.env("TORCHMILL_NVIDIA_DRIVER", "470.256.02");
    Ran::of(&mut command, w.path())
        .exits(3)
        .says("the NVIDIA driver is 470.256.02; what CUDA 12.4 makes needs 525.60.13 or newer")
        .says("building for another machine: TORCHMILL_NVIDIA_DRIVER=525.60.13");
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
    w.run(TOOLKIT)
        .exits(3)
        .says("the CUDA toolkit of torch-2.6.0-cu124-sm90, packages and all, needs about")
        .says("--store DIR");
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
    let mut files = crate::standin::fresh_files();
    let cmake = files["CMakeLists.txt"].replace("option(BUILD_TEST", "option(USE_CUDA \"\" OFF)\noption(BUILD_TEST");
    files.insert("CMakeLists.txt".into(), cmake);
    let with_cuda = |r: String| {
        r.replace("[features]", "[cuda]\nversion = \"12.4\"\narchitectures = [\"9.0\"]\n[features]\nUSE_CUDA = true")
    };
    let w = crate::standin::workspace_with(&files, with_cuda);
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

/// A wheel of a package that torch depends on, with one library in it, put into the store; its lock entry.
fn package_in_store(w: &Workspace) -> torchmill::recipe::Locked {
    use std::io::Write;
    let mut wheel = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    wheel.start_file("nvidia/fake/lib/libfake.so.12", zip::write::SimpleFileOptions::default()).unwrap();
    wheel.write_all(b"a library").unwrap();
    let bytes = wheel.finish().unwrap().into_inner();
    let sha256 = crate::support::sha256(&bytes);
    let blob = w.store.join("v1/blobs").join(&sha256[..2]).join(&sha256);
    std::fs::create_dir_all(blob.parent().unwrap()).unwrap();
    std::fs::write(blob, &bytes).unwrap();
    let coordinate = "pypi:nvidia-fake-cu12/1.0/nvidia_fake_cu12-1.0-py3-none-any.whl".parse().unwrap();
    torchmill::recipe::Locked { sha256, size: bytes.len() as u64, coordinate: Some(coordinate) }
}

#[test]
fn a_wheel_depends_on_the_packages_whose_libraries_it_needs_and_leads_to_them() {
    let mut files = crate::standin::fresh_files();
    let edit = |files: &mut std::collections::BTreeMap<String, String>, name: &str, from: &str, to: &str| {
        let text = files[name].replace(from, to);
        assert_ne!(text, files[name], "{from} is not in {name}");
        files.insert(name.into(), text);
    };
    edit(&mut files, "CMakeLists.txt", "option(BUILD_TEST", "option(USE_CUDA \"\" OFF)\noption(BUILD_TEST");
    edit(
        &mut files,
        "caffe2/CMakeLists.txt",
        "install(TARGETS torch_cpu",
        "add_library(fake SHARED ${CMAKE_SOURCE_DIR}/c10/c10.cpp)\nset_target_properties(fake PROPERTIES SOVERSION 12)\n\
         target_link_libraries(torch_cpu PRIVATE fake)\ntarget_link_options(torch_cpu PRIVATE LINKER:--no-as-needed)\n\
         install(TARGETS torch_cpu",
    );
    edit(
        &mut files,
        "setup.py",
        "setup(name=",
        "setup(install_requires=os.environ[\"PYTORCH_EXTRA_INSTALL_REQUIREMENTS\"].split(\" | \"), name=",
    );
    let with_cuda = |r: String| {
        let cuda = "[cuda]\nversion = \"12.4\"\narchitectures = [\"9.0\"]\n\
                    requires = [\"nvidia-fake-cu12==1.0; platform_system == 'Linux'\"]\n[features]\nUSE_CUDA = true";
        r.replace("[features]", cuda)
    };
    let w = crate::standin::workspace_with(&files, with_cuda);
    let home = installed_toolkit(w.path(), "9.1.0");
    let build = |until: &str| {
        let mut command = w.xtask(&["build-torch", "--recipe", "standin", "--until", until, "--json", "--cuda-home"]);
        Ran::of(command.arg(&home), w.path())
    };
    // What it depends on must be among what it is verified with.
    build("wheel").exits(2).says("cuda.requires has nvidia-fake-cu12==1.0, which python.verify of the recipe lacks");

    let path = w.path().join("recipes/standin.lock");
    let mut lock: torchmill::recipe::Lock = toml::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    let package = package_in_store(&w);
    lock.python.values_mut().flat_map(|m| m.values_mut()).for_each(|p| p.verify = vec![package.clone()]);
    std::fs::write(&path, lock.to_toml("standin").unwrap()).unwrap();
    let json: serde_json::Value = serde_json::from_str(&build("wheel").exits(0).stdout).unwrap();
    let tree = Path::new(json["outcome"]["stopped"]["folder"].as_str().unwrap()).join("tree");
    let report = Ran::of(w.xtask(&["inspect", "--json"]).arg(tree.join("torch/lib/libtorch_cpu.so")), w.path());
    let report: serde_json::Value = serde_json::from_str(&report.exits(0).stdout).unwrap();
    let library = &report["libraries"][0];
    assert!(library["needed"].as_array().unwrap().iter().any(|n| n == "libfake.so.12"), "{library}");
    assert_eq!(library["run_path"], serde_json::json!(["$ORIGIN", "$ORIGIN/../../nvidia/fake/lib"]));
    let names: Vec<String> = walkdir::WalkDir::new(&tree)
        .into_iter()
        .flatten()
        .map(|e| e.file_name().to_str().unwrap().to_owned())
        .collect();
    // A library that is taken in has its digest in its name.
    assert!(!names.iter().any(|n| n.starts_with("libfake-")), "it was taken in: {names:?}");
    let metadata = walkdir::WalkDir::new(&tree).into_iter().flatten().find(|e| e.file_name() == "METADATA").unwrap();
    let metadata = std::fs::read_to_string(metadata.path()).unwrap();
    assert!(metadata.contains("Requires-Dist: nvidia-fake-cu12==1.0; platform_system == \"Linux\""), "{metadata}");
}

/// The real toolkit.
#[test]
#[ignore = "takes too much: downloads 2 GB"]
fn the_real_toolkit_compiles_links_and_runs_and_a_second_recipe_shares_it() {
    let w = copy_of_the_recipes();
    let ran = w.run(&[TOOLKIT, &["--json"]].concat());
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
