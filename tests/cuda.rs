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

/// A compiler that calls itself Clang of this version.
fn clang(w: &Workspace, version: &str) -> PathBuf {
    let said = format!(
        "case \"$1\" in --version) echo 'Debian clang version {version} (3)';; -dumpversion) echo {version};; *) exec g++ \"$@\";; esac"
    );
    script(&w.path().join(format!("clang-{version}")), &said)
}

#[test]
fn a_clang_that_is_too_new_for_nvcc_is_named_with_the_newest_that_works() {
    let w = copy_of_the_recipes();
    for (recipe, version, cuda, newest) in [
        ("torch-2.6.0-cu124-sm90", "19.1.7", "12.4", "17"),
        ("torch-2.12.1-cu126", "19.1.7", "12.6", "18"),
        ("torch-2.12.1-cu130-sm90", "21.1.0", "13.0", "20"),
    ] {
        let clang = clang(&w, version);
        for begin in [&["build-torch", "--dry-run"][..], &["toolchain", "cuda"]] {
            let mut command = w.xtask(&[begin, &["--recipe", recipe]].concat());
            command.env("CC", &clang).env("CXX", &clang);
            Ran::of(&mut command, w.path())
                .exits(3)
                .says(&format!("is Clang {version}; nvcc of CUDA {cuda} takes Clang up to {newest}"))
                .says(&format!("apt-get install clang-{newest}"));
        }
    }
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

/// As on Windows and WSL2, which have no NVIDIA module in the kernel.
#[test]
fn where_the_kernel_says_no_driver_its_own_tool_is_asked() {
    let w = copy_of_the_recipes();
    let bin = w.path().join("bin");
    std::fs::create_dir_all(&bin).unwrap();
    let asked = w.path().join("asked");
    script(&bin.join("nvidia-smi"), &format!("echo \"$@\" > '{}'; echo 470.256.02; echo 470.256.02", asked.display()));
    let mut path = vec![bin];
    path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap()));
    needs_a_disk_that_nobody_has(&w, "torch-2.6.0-cu124-sm90", "nvidia-cudnn-cu12");
    let run = |driver: Option<&str>| {
        let mut command = w.xtask(TOOLKIT);
        command.env("PATH", std::env::join_paths(&path).unwrap()).env_remove("TORCHMILL_NVIDIA_DRIVER");
        command.envs(driver.map(|driver| ("TORCHMILL_NVIDIA_DRIVER", driver)));
        Ran::of(&mut command, w.path()).exits(3)
    };
    // Who says it is believed.
    run(Some("550.54.14")).says("packages and all, needs about");
    assert!(!asked.exists());
    let ran = run(None);
    // A machine with an NVIDIA GPU has its own answer.
    let is_known = Path::new("/sys/module/nvidia/version").exists();
    assert_eq!(asked.exists(), !is_known);
    if !is_known {
        ran.says("the NVIDIA driver is 470.256.02; what CUDA 12.4 makes needs 525.60.13 or newer");
        assert_eq!(std::fs::read_to_string(asked).unwrap(), "--query-gpu=driver_version --format=csv,noheader\n");
    }
}

/// Makes a source of the recipe's toolkit larger than any disk: what would be downloaded next is not.
fn needs_a_disk_that_nobody_has(w: &Workspace, recipe: &str, source: &str) {
    let path = w.path().join(format!("recipes/{recipe}.lock"));
    let lock = std::fs::read_to_string(&path).unwrap();
    let head = format!("[source.{source}]");
    let (before, after) = lock.split_once(&head).unwrap();
    let (digest, rest) = after.split_once("size = ").unwrap();
    let (_, rest) = rest.split_once('\n').unwrap();
    std::fs::write(&path, format!("{before}{head}{digest}size = 900000000000000\n{rest}")).unwrap();
}

#[test]
fn a_disk_without_room_for_the_toolkit_is_said_before_anything_is_downloaded() {
    let w = copy_of_the_recipes();
    needs_a_disk_that_nobody_has(&w, "torch-2.6.0-cu124-sm90", "nvidia-cudnn-cu12");
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
    w.run(&["toolchain", "cuda", "--recipe", "torch-2.6.0-cpu"])
        .exits(2)
        .says("has no CUDA")
        .says("torch-2.12.1-cu130");
}

/// A folder that answers like an installed toolkit: its nvcc makes a program that names these versions.
fn installed_toolkit(dir: &Path, cuda: &str, cudnn: &str, nccl: &str) -> PathBuf {
    let home = dir.join(format!("cuda-{cudnn}"));
    for folder in ["bin", "include", "lib64"] {
        std::fs::create_dir_all(home.join(folder)).unwrap();
    }
    std::fs::write(home.join("include/cuda_runtime.h"), "").unwrap();
    let said = format!(r#"{{"runtime": "{cuda}", "cublas": "{cuda}.5", "cudnn": "{cudnn}", "nccl": "{nccl}"}}"#);
    script(
        &home.join("bin/nvcc"),
        &format!(
            "if [ \"$1\" = --version ]; then echo 'release {cuda}, V{cuda}.131'; exit; fi\n\
             while [ \"$1\" != -o ]; do shift; done\n\
             printf '#!/bin/sh\\necho '\"'\"'{said}'\"'\"'\\n' > \"$2\"; chmod +x \"$2\""
        ),
    );
    home
}

#[test]
fn an_installed_toolkit_is_tried_and_recorded_or_refused_for_its_cudnn() {
    let w = copy_of_the_recipes();
    let home = installed_toolkit(w.path(), "12.4", "9.1.0", "2.21.5");
    let ran = w.run(&[TOOLKIT, &["--cuda-home", home.to_str().unwrap(), "--json"]].concat()).exits(0);
    let json: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((json["installed"].as_bool(), json["nvcc"].as_str()), (Some(true), Some("12.4.131")));
    assert!(json["identity"].as_str().unwrap().contains("bin/nvcc"), "{json}");
    let other = installed_toolkit(w.path(), "12.4", "8.9.7", "2.21.5");
    w.run(&[TOOLKIT, &["--cuda-home", other.to_str().unwrap()]].concat())
        .exits(2)
        .says("cuDNN: the recipe says 9.1.0.70, the toolkit has 8.9.7");
}

#[test]
fn owners_of_old_cards_are_told_what_to_install_and_which_cudnn_is_too_new_for_them() {
    let w = copy_of_the_recipes();
    let build = ["build-torch", "--dry-run", "--recipe", "torch-2.12.1-cu126"];
    w.run(&build)
        .exits(2)
        .says("brings no CUDA toolkit, and no installed one was named")
        .says("--cuda-home /usr/local/cuda-12.6");
    let toolkit = ["toolchain", "cuda", "--recipe", "torch-2.12.1-cu126", "--cuda-home"];
    let tried = |cuda: &str, cudnn: &str| {
        let home = installed_toolkit(w.path(), cuda, cudnn, "2.25.1");
        w.run(&[&toolkit[..], &[home.to_str().unwrap()]].concat())
    };
    tried("12.6", "9.5.1").exits(0);
    tried("12.6", "9.12.0").exits(2).says("cuDNN: 9.12.0 has no code for 5.0, 9.10 is the last that has");
    tried("12.9", "9.5.1").exits(2).says("CUDA: the recipe says 12.6, the toolkit has 12.9");
    // What the wheel would run with is told before there is a toolkit.
    let (from, to) = ("'nvidia-cudnn-cu12==9.5.1.17;", "'nvidia-cudnn-cu12==9.12.0.46;");
    recipes_with("torch-2.12.1-cu126", from, to)
        .run(&build)
        .exits(2)
        .says("torch-2.12.1-cu126.toml: nvidia-cudnn-cu12 9.12.0.46 has no code for 5.0, 9.10 is the last that has");
}

#[test]
fn an_installed_toolkit_of_another_version_is_told_before_anything_is_downloaded() {
    let w = copy_of_the_recipes();
    let plan = |home: &Path| {
        let mut command = w.xtask(&["build-torch", "--dry-run", "--recipe", "torch-2.12.1-cu126", "--cuda-home"]);
        Ran::of(command.arg(home), w.path())
    };
    let home = installed_toolkit(w.path(), "12.9", "9.5.1", "2.25.1");
    plan(&home).exits(2).says("CUDA: the recipe says 12.6, the toolkit has 12.9").says("or change cuda.version");
    let home = installed_toolkit(w.path(), "12.6", "9.12.0", "2.20.5");
    // Whose headers are elsewhere is asked by compiling.
    plan(&home).exits(0);
    let header = |name: &str, text: &str| std::fs::write(home.join("include").join(name), text).unwrap();
    header("cudnn_version.h", "#define CUDNN_MAJOR 9\n#define CUDNN_MINOR 12\n#define CUDNN_PATCHLEVEL 0\n");
    header("nccl.h", "#define NCCL_MAJOR 2\n#define NCCL_MINOR 20\n#define NCCL_PATCH 5\n#define NCCL_SUFFIX \"\"\n");
    plan(&home)
        .exits(2)
        .says("cuDNN: the recipe says 9.5.1.17, the toolkit has 9.12.0")
        .says("cuDNN: 9.12.0 has no code for 5.0, 9.10 is the last that has")
        .says("NCCL: the recipe says 2.25.1, the toolkit has 2.20.5");
    // What is no toolkit is told where one of this recipe's CUDA would be.
    plan(&w.path().join("recipes")).exits(2).says("has no bin/nvcc").says("such as /usr/local/cuda-12.6");
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
    let home = installed_toolkit(w.path(), "12.4", "9.1.0", "2.21.5");
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
    // As a download comes in, whole: another build may be using the same bytes at this moment.
    let store = torchmill::store::Store::open(Some(&w.store)).unwrap();
    let beside = tempfile::tempdir_in(store.root().join("parts")).unwrap();
    let part = beside.path().join("part");
    std::fs::write(&part, &bytes).unwrap();
    store.adopt(&part, &sha256).unwrap();
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
    let home = installed_toolkit(w.path(), "12.4", "9.1.0", "2.21.5");
    let build_in = |w: &Workspace, until: &str| {
        let mut command = w.xtask(&["build-torch", "--recipe", "standin", "--until", until, "--json", "--cuda-home"]);
        Ran::of(command.arg(&home), w.path())
    };
    let build = |until: &str| build_in(&w, until);
    // What it depends on must be among what it is verified with; that is told before anything is compiled.
    let mut broken = files.clone();
    broken.insert("c10/c10.cpp".into(), "#error nothing is to be compiled\n".into());
    build_in(&crate::standin::workspace_with(&broken, with_cuda), "wheel")
        .exits(2)
        .says("cuda.requires has nvidia-fake-cu12==1.0, which python.verify of the recipe lacks");

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

// --- CUDA 13 -------------------------------------------------------------------------------------

const TOOLKIT_13: &[&str] = &["toolchain", "cuda", "--recipe", "torch-2.12.1-cu130-sm90"];

/// The recipes, `name` among them changed from `from` to `to`.
pub fn recipes_with(name: &str, from: &str, to: &str) -> Workspace {
    let w = copy_of_the_recipes();
    let path = w.path().join(format!("recipes/{name}.toml"));
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{from} is not in {name}");
    std::fs::write(&path, text.replace(from, to)).unwrap();
    w
}

#[test]
fn an_architecture_that_cuda_13_no_longer_knows_is_told_with_the_cuda_that_does() {
    for old in ["5.0", "6.0", "7.0"] {
        recipes_with("torch-2.12.1-cu130-sm90", "[\"9.0\"]", &format!("[\"{old}\", \"9.0\"]"))
            .run(TOOLKIT_13)
            .exits(2)
            .says(&format!("names '{old}', which CUDA 13.0 cannot compile for"))
            .says("CUDA 12.9 knows it")
            .says("CUDA 13.0 knows 7.5, 8.0");
    }
    recipes_with("torch-2.12.1-cu130-sm90", "[\"9.0\"]", "[\"3.5\"]")
        .run(TOOLKIT_13)
        .exits(2)
        .says("names '3.5', which CUDA 13.0 cannot compile for")
        .says("CUDA 11.8 is the last that knows it");
}

/// As TORCH_CUDA_ARCH_LIST is written elsewhere; the list here is what nvcc is given, and what `doctor` goes by.
#[test]
fn architectures_that_are_written_otherwise_or_twice_are_told_how_they_are_written() {
    for (written, says, helps) in [
        ("\"8.0;9.0+PTX\"", "names '8.0;9.0+PTX', which", "architectures = [\"8.0\", \"9.0+PTX\"]"),
        ("\"Hopper\"", "names 'Hopper', which", "write the numbers of its GPUs: \"9.0\""),
        ("\"9.0A\"", "names '9.0A', which", "did you mean '9.0a'?"),
        ("\"sm_90\"", "names 'sm_90', which", "did you mean '9.0'?"),
        ("\"9.0+ptx\"", "names '9.0+ptx', which", "did you mean '9.0+PTX'?"),
        ("\"9.0\", \"8.0\", \"9.0\"", "names '9.0' twice", "leave one of them out"),
        ("\"9.0\", \"9.0+PTX\"", "names '9.0' and '9.0+PTX'", "leave '9.0' out: '9.0+PTX' has its code too"),
    ] {
        recipes_with("torch-2.12.1-cu130-sm90", "[\"9.0\"]", &format!("[{written}]"))
            .run(TOOLKIT_13)
            .exits(2)
            .says(&format!("cuda.architectures {says}"))
            .says(helps);
    }
}

#[test]
fn what_decides_for_which_gpus_is_compiled_comes_in_by_no_other_way_unseen() {
    let recipe = "torch-2.12.1-cu130-sm90";
    for (table, name, place) in [
        ("settings", "TORCH_CUDA_ARCH_LIST", "cuda.architectures"),
        ("cmake", "CMAKE_CUDA_ARCHITECTURES", "cuda.architectures"),
        ("machine.x86_64.settings", "CUDACXX", "--cuda-home"),
        ("settings", "PYTORCH_EXTRA_INSTALL_REQUIREMENTS", "cuda.requires"),
        ("cmake", "CMAKE_CUDA_COMPILER", "--cuda-home"),
        ("cmake", "CUDAToolkit_ROOT", "--cuda-home"),
        ("cmake", "CMAKE_CUDA_HOST_COMPILER", "toolchain.from"),
        ("settings", "CXX", "toolchain.from"),
        ("settings", "SOURCE_DATE_EPOCH", "torch.epoch"),
        ("settings", "PYTORCH_BUILD_NUMBER", "torch.version"),
    ] {
        recipes_with(recipe, "[limits]", &format!("[{table}]\n{name} = \"x\"\n[limits]"))
            .run(TOOLKIT_13)
            .exits(2)
            .says(&format!("'{name}' is no setting"))
            .says(place)
            .says("torch-2.12.1-cu130-sm90.toml:19:1: ");
    }
    let plan = |list: &str| {
        let w = copy_of_the_recipes();
        let mut command = w.xtask(&["build-torch", "--dry-run", "--recipe", recipe]);
        Ran::of(command.env("TORCH_CUDA_ARCH_LIST", list).env("TORCHMILL_NVIDIA_DRIVER", ""), w.path()).exits(0)
    };
    plan("8.6")
        .says("TORCH_CUDA_ARCH_LIST is '8.6' here, and is not read")
        .says("compiles for 9.0 (cuda.architectures)");
    for same in ["9.0", ""] {
        let ran = plan(same);
        assert!(!ran.stderr.contains("TORCH_CUDA_ARCH_LIST"), "{}", ran.stderr);
    }
}

#[test]
fn a_driver_before_580_is_too_old_for_cuda_13_and_580_is_not() {
    let w = copy_of_the_recipes();
    needs_a_disk_that_nobody_has(&w, "torch-2.12.1-cu130-sm90", "nvidia-cudnn-cu13");
    let with = |driver: &str| {
        let mut command = w.xtask(TOOLKIT_13);
        Ran::of(command.env("TORCHMILL_NVIDIA_DRIVER", driver), w.path()).exits(3)
    };
    with("575.57.08").says("the NVIDIA driver is 575.57.08; what CUDA 13.0 makes needs 580.65.06 or newer");
    // As people say it: no more is compared than they said.
    for driver in ["580", "580.65", "580.65.06", "581.15"] {
        with(driver).says("packages and all, needs about");
    }
    for none in ["R580", "580.x", "580.", "new"] {
        let mut command = w.xtask(TOOLKIT_13);
        Ran::of(command.env("TORCHMILL_NVIDIA_DRIVER", none), w.path())
            .exits(2)
            .says(&format!("TORCHMILL_NVIDIA_DRIVER is '{none}', which is no version of a driver"));
    }
}

/// As nvcc and PyTorch's list file take them: what runs on one chip alone (`a`), or, from CUDA 12.9 on, on its family
/// (`f`).
#[test]
fn code_for_a_family_is_taken_by_a_cuda_that_knows_it_and_refused_by_others() {
    let recipe = "torch-2.12.1-cu130-sm90";
    for known in ["9.0a", "10.0a+PTX", "10.0f", "10.3f", "11.0f", "12.0f+PTX", "12.1f"] {
        let w = recipes_with(recipe, "[\"9.0\"]", &format!("[\"{known}\"]"));
        needs_a_disk_that_nobody_has(&w, recipe, "nvidia-cudnn-cu13");
        let mut command = w.xtask(TOOLKIT_13);
        Ran::of(command.env("TORCHMILL_NVIDIA_DRIVER", ""), w.path()).exits(3).says("packages and all, needs about");
    }
    for unknown in ["9.0f", "10.1f", "12.0b", "10.0af", "10.0f+PTX+PTX"] {
        recipes_with(recipe, "[\"9.0\"]", &format!("[\"{unknown}\"]"))
            .run(TOOLKIT_13)
            .exits(2)
            .says(&format!("names '{unknown}', which CUDA 13.0 cannot compile for"));
    }
    recipes_with("torch-2.6.0-cu124-sm90", "architectures = [\"9.0\"]", "architectures = [\"10.0f\"]")
        .run(TOOLKIT)
        .exits(2)
        .says("names '10.0f', which CUDA 12.4 cannot compile for")
        .says("CUDA 13.2 knows it");
}

/// What is put together here for Windows meets its compiler and its driver there.
#[test]
fn a_toolkit_for_another_system_is_not_refused_for_this_machines_compiler_or_driver() {
    // The range of this torch ends before nvcc's does.
    let w = recipes_with("torch-2.12.1-cpu", "gcc = \">=11.3, <15\"", "gcc = \">=11.3\"");
    let recipe = "torch-2.12.1-windows-cu130";
    needs_a_disk_that_nobody_has(&w, recipe, "nvidia-cudnn-cu13");
    let gcc =
        script(&w.path().join("new-g++"), "case \"$1\" in -dumpfullversion) echo 16.1.0;; *) exec g++ \"$@\";; esac");
    let mut command = w.xtask(&["toolchain", "cuda", "--recipe", recipe]);
    command.env("CC", &gcc).env("CXX", &gcc).env("TORCHMILL_NVIDIA_DRIVER", "470.256.02");
    let ran = Ran::of(&mut command, w.path()).exits(3);
    assert!(!ran.stderr.contains("nvcc of CUDA") && !ran.stderr.contains("the NVIDIA driver is"), "{}", ran.stderr);
    // A machine without mingw-w64 and Wine cannot try it, and says so.
    let next = ["packages and all, needs about", "no mingw-w64 compiler", "no Wine was found"];
    assert!(next.iter().any(|said| ran.stderr.contains(said)), "{}", ran.stderr);
}

#[test]
fn a_host_compiler_that_nvcc_13_refuses_is_told_with_the_newest_that_works() {
    // The range of this torch ends before nvcc's does.
    let w = recipes_with("torch-2.12.1-cpu", "gcc = \">=11.3, <15\"", "gcc = \">=11.3\"");
    let gcc =
        script(&w.path().join("new-g++"), "case \"$1\" in -dumpfullversion) echo 16.1.0;; *) exec g++ \"$@\";; esac");
    let mut command = w.xtask(TOOLKIT_13);
    command.env("CC", &gcc).env("CXX", &gcc);
    Ran::of(&mut command, w.path()).exits(3).says("is GCC 16.1.0; nvcc of CUDA 13.0 takes GCC up to 15");
}

#[test]
fn a_missing_companion_of_nvcc_and_parts_of_two_toolkits_are_told_before_anything_is_downloaded() {
    for (package, has) in [("nvidia-nvvm", "cicc"), ("nvidia-cuda-crt", "headers"), ("nvidia-cuda-cccl", "cub")] {
        let without = format!("schema = 1\nwithout = [\"{package}\"]");
        recipes_with("torch-2.12.1-cu130-sm90", "schema = 1", &without)
            .run(TOOLKIT_13)
            .exits(2)
            .says(&format!("the toolkit takes nvidia-cuda-nvcc, and not {package}: it has"))
            .says(has)
            .says(&format!("add a source with {package} 13.0.*"));
    }
    recipes_with("torch-2.12.1-cu130-sm90", "schema = 1", "schema = 1\nwithout = [\"nvidia-cuda-nvcc\"]")
        .run(TOOLKIT_13)
        .exits(2)
        .says("the toolkit takes packages of CUDA, and not nvidia-cuda-nvcc: it has nvcc");
    let base = "torch-2.12.1-cu130";
    // Two updates of one release.
    recipes_with(base, "pypi:nvidia-cuda-crt/13.0.88/", "pypi:nvidia-cuda-crt/13.0.48/")
        .run(TOOLKIT_13)
        .exits(2)
        .says("takes nvidia-cuda-nvcc 13.0.88 and nvidia-cuda-crt 13.0.48: they are of two builds of the compiler")
        .says("take nvidia-cuda-crt 13.0.88");
    // Two major versions, which these packages have in their names alone.
    for (from, to, told) in [
        ("pypi:nvidia-cudnn-cu13/9.20.0.48/", "pypi:nvidia-cudnn-cu12/9.20.0.48/", "nvidia-cudnn-cu12 9.20.0.48"),
        ("'nvidia-cusparselt-cu13==0.8.1;", "'nvidia-cusparselt-cu12==0.8.1;", "nvidia-cusparselt-cu12 0.8.1"),
        ("\"nvidia-nvshmem-cu13==3.4.5\"", "\"nvidia-nvshmem-cu12==3.4.5\"", "nvidia-nvshmem-cu12 3.4.5"),
    ] {
        recipes_with(base, from, to)
            .run(TOOLKIT_13)
            .exits(2)
            .says(&format!("{told} is for CUDA 12, and cuda.version is 13.0"))
            .says(&format!("take {}-cu13", told.split("-cu12").next().unwrap()));
    }
    // However its name is spelt.
    recipes_with(base, "'nvidia-nccl-cu13==2.29.7;", "'NVIDIA_nccl.cu13==2.29.6;")
        .run(TOOLKIT_13)
        .exits(2)
        .says("the toolkit takes nvidia-nccl-cu13 2.29.7, and cuda.requires has 2.29.6");
    recipes_with(base, "pypi:nvidia-cuda-crt/13.0.88/", "pypi:nvidia-cuda-crt/13.1.80/")
        .run(TOOLKIT_13)
        .exits(2)
        .says("nvidia-cuda-crt 13.1.80 is of another release than cuda.version, 13.0")
        .says("whose version begins with 13.0.");
    recipes_with(base, "\"nvidia-cufft==12.0.0.61\"", "\"nvidia-cufft==12.0.0.15\"")
        .run(TOOLKIT_13)
        .exits(2)
        .says("the toolkit takes nvidia-cufft 12.0.0.61, and python.verify has 12.0.0.15");
    // Of what stock leaves open, none that it does not.
    recipes_with(base, "pypi:nvidia-cublas/13.1.0.3/", "pypi:nvidia-cublas/13.2.0.9/")
        .run(TOOLKIT_13)
        .exits(2)
        .says("the toolkit takes nvidia-cublas 13.2.0.9, and cuda.requires has");
    recipes_with(base, "'nvidia-nccl-cu13==2.29.7;", "'nvidia-nccl-cu13;")
        .run(TOOLKIT_13)
        .exits(2)
        .says("takes any version");
}

/// The files of a toolkit as CUDA 13's packages have them, its programs scripts.
fn packed_toolkit() -> std::collections::BTreeMap<String, String> {
    let said = r#"{"runtime": "13.0", "cublas": "13.1.0", "cudnn": "9.20.0", "nccl": "2.29.7"}"#;
    let nvcc = format!(
        "#!/bin/sh\nif [ \"$1\" = --version ]; then echo 'release 13.0, V13.0.88'; exit; fi\n\
         while [ \"$1\" != -o ]; do shift; done\n\
         printf '#!/bin/sh\\necho '\"'\"'{said}'\"'\"'\\n' > \"$2\"; chmod +x \"$2\"\n"
    );
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos().to_string();
    [
        ("bin/nvcc", nvcc.as_str()),
        ("bin/nvcc.profile", "the package's own profile\n"),
        ("bin/cudafe++", "x"),
        ("bin/ptxas", "x"),
        ("bin/fatbinary", "x"),
        ("bin/nvlink", "x"),
        ("nvvm/bin/cicc", "x"),
        ("nvvm/libdevice/libdevice.10.bc", "x"),
        ("include/cuda.h", "CUresult CUDAAPI cuInit(unsigned int Flags);\n"),
        ("include/cuda_runtime.h", ""),
        ("include/crt/host_config.h", ""),
        ("include/nv/target", ""),
        ("include/fresh.h", now.as_str()),
        ("lib/libcudart.so.13", "the shared library"),
        ("lib/libcudart_static.a", "!<arch>\nthe real static library\n"),
        ("lib/libcudadevrt.a", "!<arch>\nthe real run-time library of the device\n"),
    ]
    .map(|(name, text)| (name.to_owned(), text.to_owned()))
    .into()
}

/// The stand-in with CUDA and this toolkit in place of packages, locked.
fn with_packed_toolkit(files: &std::collections::BTreeMap<String, String>) -> Workspace {
    let w = crate::standin::workspace_with(&crate::standin::files(), |r| {
        let source = "[[source]]\nname = \"toolkit\"\ncoordinates = [\"file:toolkit.tar\"]\n\
                      into = [{ prefix = \"cuda\", strip = 1 }]\nlicense = \"MIT\"\nlinked = false\n";
        r.replace("[features]", "[cuda]\nversion = \"13.0\"\narchitectures = [\"9.0\"]\n[features]\nUSE_CUDA = true")
            + source
    });
    let bytes = crate::support::tar("toolkit", files);
    w.write("toolkit.tar", &bytes);
    let path = w.path().join("recipes/standin.lock");
    let mut lock: torchmill::recipe::Lock = toml::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    let (sha256, size) = (crate::support::sha256(&bytes), bytes.len() as u64);
    lock.source.insert("toolkit".into(), torchmill::recipe::Locked { sha256, size, coordinate: None });
    std::fs::write(&path, lock.to_toml("standin").unwrap()).unwrap();
    w
}

#[test]
fn a_toolkit_is_made_and_the_store_holds_what_it_held() {
    let files = packed_toolkit();
    let w = with_packed_toolkit(&files);
    let command = ["toolchain", "cuda", "--recipe", "standin", "--json"];
    let json: serde_json::Value = serde_json::from_str(&w.run(&command).exits(0).stdout).unwrap();
    let toolkit = PathBuf::from(json["folder"].as_str().unwrap().replace("[DIR]", w.path().to_str().unwrap()));
    let prefix = std::fs::read_dir(w.store.join("v1/stages/prefix"))
        .unwrap()
        .flatten()
        .map(|e| e.path().join("out"))
        .find(|out| std::fs::read_to_string(out.join("include/fresh.h")).is_ok_and(|t| t == files["include/fresh.h"]))
        .expect("the store has no prefix with the toolkit's files");
    for (name, text) in &files {
        assert_eq!(&std::fs::read_to_string(prefix.join(name)).unwrap(), text, "{name} of the store was written to");
        // The files of a package are what they are, its own profile and static libraries too.
        assert_eq!(&std::fs::read_to_string(toolkit.join(name)).unwrap(), text, "{name} of the toolkit");
    }
    assert!(toolkit.join("lib/libcudart.so").is_file() && toolkit.join("lib/stubs/libcuda.so").is_file());
    // Whoever judges the store finds nothing, and makes nothing again.
    let again = w.run(&command).exits(0);
    assert!(!again.stderr.contains("set aside"), "{}", again.stderr);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&again.stdout).unwrap()["folder"], json["folder"]);
}

/// The toolkit of packages is the same whatever is compiled with it; the programs that go to a GPU are for the recipe's.
#[test]
fn recipes_for_other_gpus_share_the_toolkit_and_get_a_trial_of_their_own() {
    let mut files = packed_toolkit();
    let asked = tempfile::NamedTempFile::new().unwrap();
    let nvcc = files["bin/nvcc"].replace("while [", &format!("echo \"$@\" >> '{}'\nwhile [", asked.path().display()));
    assert_ne!(nvcc, files["bin/nvcc"]);
    files.insert("bin/nvcc".into(), nvcc);
    let w = with_packed_toolkit(&files);
    let toolkit = |more: &[&str]| {
        let ran = w.run(&[&["toolchain", "cuda", "--recipe", "standin", "--json"], more].concat()).exits(0);
        serde_json::from_str::<serde_json::Value>(&ran.stdout).unwrap()["folder"].clone()
    };
    // What nvcc was asked to compile for since it was asked last.
    let targets = || {
        let said = std::fs::read_to_string(asked.path()).unwrap();
        std::fs::write(asked.path(), "").unwrap();
        let words = said.split_whitespace().filter_map(|word| word.strip_prefix("--gpu-architecture="));
        words.map(str::to_owned).collect::<Vec<_>>()
    };
    let path = w.path().join("recipes/standin.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let first = toolkit(&[]);
    assert_eq!(targets(), ["sm_90", "sm_90"]);
    for (architectures, own) in [("\"8.0\"", "sm_80"), ("\"12.0\", \"7.5\"", "sm_120")] {
        std::fs::write(&path, text.replace("\"9.0\"", architectures)).unwrap();
        assert_eq!(toolkit(&[]), first);
        assert_eq!(targets(), [""; 0], "it was tried again");
        let trial = w.path().join("trial");
        assert_eq!(toolkit(&["--trial", trial.to_str().unwrap()]), first);
        assert_eq!(targets(), [own, own]);
    }
}

/// GPUs are for `validate --gpu`: of one that the machine happens to have, the wheel may have no code.
#[test]
fn what_was_built_is_verified_without_the_gpus_of_the_machine() {
    let mut files = crate::standin::fresh_files();
    let says = "import os\nraise SystemExit(f\"GPUs: {os.environ.get('CUDA_VISIBLE_DEVICES')!r}\")\n";
    files.insert("torch/__init__.py".into(), says.into());
    let w = crate::standin::workspace(&files);
    // The environment that it is tried in needs pip alone.
    let path = w.path().join("recipes/standin.lock");
    let mut lock: torchmill::recipe::Lock = toml::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    for packages in lock.python.values_mut().flat_map(|m| m.values_mut()) {
        let is_pip = |locked: &&torchmill::recipe::Locked| {
            locked.coordinate.as_ref().is_some_and(|coordinate| coordinate.file_name().starts_with("pip-"))
        };
        packages.verify = packages.build.iter().filter(is_pip).cloned().collect();
        assert_eq!(packages.verify.len(), 1);
    }
    std::fs::write(&path, lock.to_toml("standin").unwrap()).unwrap();
    let mut command = w.xtask(&["build-torch", "--recipe", "standin", "--until", "verify"]);
    Ran::of(command.env("CUDA_VISIBLE_DEVICES", "0"), w.path()).exits(3).says("GPUs: ''");
}

/// The stand-in with CUDA and a profiler, for which CMake finds CUPTI or does not.
#[test]
fn a_profiler_that_would_see_no_gpu_stops_the_build_at_configure() {
    let with = |no_cupti: &str| {
        let mut files = crate::standin::fresh_files();
        let options = format!(
            "option(USE_CUDA \"\" OFF)\noption(USE_KINETO \"\" ON)\n\
             set(LIBKINETO_NOCUPTI {no_cupti} CACHE BOOL \"\" FORCE)\noption(BUILD_TEST"
        );
        let cmake = files["CMakeLists.txt"].replace("option(BUILD_TEST", &options);
        files.insert("CMakeLists.txt".into(), cmake);
        let w = crate::standin::workspace_with(&files, |r| {
            let cuda =
                "[cuda]\nversion = \"12.4\"\narchitectures = [\"9.0\"]\n[features]\nUSE_CUDA = true\nUSE_KINETO = true";
            r.replace("[features]", cuda)
        });
        let home = installed_toolkit(w.path(), "12.4", "9.1.0", "2.21.5");
        let mut command = w.xtask(&["build-torch", "--recipe", "standin", "--until", "configure", "--cuda-home"]);
        Ran::of(command.arg(home), w.path())
    };
    with("OFF").exits(0);
    with("ON")
        .exits(3)
        .says("USE_KINETO: the recipe says on, and has CUDA; CMake ended with LIBKINETO_NOCUPTI 'ON'")
        .says("the profiler would see no GPU");
}

/// The stand-in with CUDA, and with what PyTorch looks for before it takes NVSHMEM in.
#[test]
fn nvshmem_that_cmake_would_leave_out_stops_the_build_at_configure() {
    let with = |parts: &str| {
        let mut files = crate::standin::fresh_files();
        let options = format!("option(USE_CUDA \"\" OFF)\noption(USE_NVSHMEM \"\" ON)\n{parts}option(BUILD_TEST");
        let cmake = files["CMakeLists.txt"].replace("option(BUILD_TEST", &options);
        files.insert("CMakeLists.txt".into(), cmake);
        let w = crate::standin::workspace_with(&files, |r| {
            let cuda = "[cuda]\nversion = \"12.4\"\narchitectures = [\"9.0\"]\n[features]\nUSE_CUDA = true";
            r.replace("[features]", &format!("{cuda}\nUSE_NVSHMEM = true"))
        });
        let home = installed_toolkit(w.path(), "12.4", "9.1.0", "2.21.5");
        let mut command = w.xtask(&["build-torch", "--recipe", "standin", "--until", "configure", "--cuda-home"]);
        Ran::of(command.arg(home), w.path())
    };
    let found = "find_file(NVSHMEM_HOST_LIB CMakeLists.txt PATHS ${CMAKE_SOURCE_DIR} NO_DEFAULT_PATH)\n";
    with(found).exits(0);
    with(&format!("{found}find_library(NVSHMEM_DEVICE_LIB no_such_library)\n"))
        .exits(3)
        .says("USE_NVSHMEM: the recipe says on; CMake ended with NVSHMEM_DEVICE_LIB 'NVSHMEM_DEVICE_LIB-NOTFOUND'")
        .says("it would be left out");
}

/// As in a build with a profiler, whose `torch_cpu` needs CUPTI and the run time: no run path of the build leads there.
#[test]
fn a_program_of_the_build_is_linked_though_its_libraries_need_those_of_the_toolkit() {
    let mut files = crate::standin::fresh_files();
    let cmake = files["CMakeLists.txt"].replace("option(BUILD_TEST", "option(USE_CUDA \"\" OFF)\noption(BUILD_TEST");
    files.insert("CMakeLists.txt".into(), cmake);
    for (name, text) in [
        ("profiler.cpp", "extern \"C\" int cudart_version();\nint profiler() { return cudart_version(); }\n"),
        ("shm.cpp", "int profiler();\nint shm() { return profiler(); }\n"),
        ("manager.cpp", "int shm();\nint c10_answer();\nint main() { return shm() - c10_answer(); }\n"),
    ] {
        files.insert(name.into(), text.into());
    }
    // Targets of the kind that FindCUDAToolkit.cmake makes.
    let list = "add_library(CUDA::cudart UNKNOWN IMPORTED)\n\
         set_target_properties(CUDA::cudart PROPERTIES IMPORTED_LOCATION $ENV{CUDA_HOME}/lib64/libcudart.so)\n\
         target_sources(torch_cpu PRIVATE ${CMAKE_SOURCE_DIR}/profiler.cpp)\n\
         target_link_libraries(torch_cpu PRIVATE CUDA::cudart)\n\
         add_library(shm SHARED ${CMAKE_SOURCE_DIR}/shm.cpp)\n\
         target_link_libraries(shm PRIVATE torch_cpu)\n\
         add_executable(torch_shm_manager ${CMAKE_SOURCE_DIR}/manager.cpp)\n\
         target_link_libraries(torch_shm_manager PRIVATE shm c10)\n\
         set_target_properties(torch_shm_manager PROPERTIES INSTALL_RPATH \"$ORIGIN/../lib\")\n";
    files.get_mut("caffe2/CMakeLists.txt").unwrap().push_str(list);
    let w = crate::standin::workspace_with(&files, |r| {
        r.replace("[features]", "[cuda]\nversion = \"12.4\"\narchitectures = [\"9.0\"]\n[features]\nUSE_CUDA = true")
    });
    let home = installed_toolkit(w.path(), "12.4", "9.1.0", "2.21.5");
    let library = home.join("lib64/libcudart.so.13");
    std::fs::write(home.join("runtime.c"), "int cudart_version(void) { return 42; }\n").unwrap();
    let made = std::process::Command::new("cc")
        .args(["-shared", "-fPIC", "-Wl,-soname,libcudart.so.13", "-o"])
        .arg(&library)
        .arg(home.join("runtime.c"))
        .status();
    assert!(made.unwrap().success());
    std::fs::hard_link(&library, library.with_extension("")).unwrap();
    let mut command = w.xtask(&["build-torch", "--recipe", "standin", "--until", "compile", "--cuda-home"]);
    Ran::of(command.arg(home), w.path()).exits(0);
}

#[test]
fn a_toolkit_without_the_two_static_libraries_gets_stand_ins_and_one_without_cicc_is_refused() {
    let mut files = packed_toolkit();
    for name in ["bin/nvcc.profile", "lib/libcudadevrt.a", "lib/libcudart_static.a"] {
        files.remove(name);
    }
    let w = with_packed_toolkit(&files);
    let ran = w.run(&["toolchain", "cuda", "--recipe", "standin", "--json"]).exits(0);
    let json: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let toolkit = PathBuf::from(json["folder"].as_str().unwrap().replace("[DIR]", w.path().to_str().unwrap()));
    assert_eq!(std::fs::read_to_string(toolkit.join("lib/libcudadevrt.a")).unwrap(), "!<arch>\n");
    assert_eq!(std::fs::read_to_string(toolkit.join("lib/libcudart_static.a")).unwrap(), "INPUT(-lcudart)\n");
    assert!(std::fs::read_to_string(toolkit.join("bin/nvcc.profile")).unwrap().contains("CICC_PATH"));
    files.remove("nvvm/bin/cicc");
    with_packed_toolkit(&files)
        .run(&["toolchain", "cuda", "--recipe", "standin"])
        .exits(2)
        .says("no source of the recipe puts nvvm/bin/cicc into its prefix 'cuda'")
        .says("the package nvidia-nvvm");
}

/// What the launcher of a build has nvcc do; what comes of it, the real nvcc shows below.
#[test]
fn nvcc_of_cuda_13_is_told_the_same_in_any_folder() {
    let w = Workspace::new();
    let top = w.path().canonicalize().unwrap();
    let told = |folder: &str, names: bool| {
        let work = top.join(folder);
        let build = work.join("src/build");
        std::fs::create_dir_all(&build).unwrap();
        let nvcc = script(&work.join("nvcc"), "printf '%s ' \"$@\"");
        let mut command = w.xtask(&[torchmill::toolchain::LAUNCH_COMMAND]);
        command.arg(&work).arg(nvcc).args(["-x", "cu", "-c"]).arg(work.join("src/cuda/k.cu")).args(["-o", "k.o"]);
        command.current_dir(build);
        if names {
            command.env(torchmill::toolchain::nvcc::NAMES_VARIABLE, "1");
        }
        Ran::of(&mut command, w.path()).exits(0).stdout
    };
    for folder in ["one", "another/below"] {
        let rest = "-x cu -c ../cuda/k.cu -o k.o ";
        assert_eq!(
            told(folder, true),
            format!("--objdir-as-tempdir -Xcudafe=--orig_src_path_name=../cuda/k.cu {rest}")
        );
        assert_eq!(told(folder, false), rest);
    }
}

#[test]
fn by_which_names_nvcc_makes_objects_is_in_the_key_from_cuda_13_on() {
    let parts = |cuda: &str| {
        let mut files = crate::standin::files();
        let cmake =
            files["CMakeLists.txt"].replace("option(BUILD_TEST", "option(USE_CUDA \"\" OFF)\noption(BUILD_TEST");
        files.insert("CMakeLists.txt".into(), cmake);
        let w = crate::standin::workspace_with(&files, |r| {
            let cuda = format!("[cuda]\nversion = \"{cuda}\"\narchitectures = [\"9.0\"]\n");
            r.replace("[features]", &format!("{cuda}[features]\nUSE_CUDA = true"))
        });
        let home = installed_toolkit(w.path(), cuda, "9.1.0", "2.21.5");
        let build = ["build-torch", "--recipe", "standin", "--until", "configure", "--json", "--cuda-home"];
        let mut command = w.xtask(&build);
        let ran = Ran::of(command.arg(home).env("TORCHMILL_NVIDIA_DRIVER", "580.65.06"), w.path()).exits(0);
        let json: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        let work = Path::new(json["outcome"]["stopped"]["folder"].as_str().unwrap());
        std::fs::read_to_string(work.join("configure.parts.json")).unwrap()
    };
    assert!(parts("13.0").contains("\"names of nvcc\""));
    assert!(!parts("12.4").contains("\"names of nvcc\""));
}

/// nvcc alone, without farm and cache, in two stores whose paths are of two lengths.
#[test]
#[ignore = "takes too much: downloads nvcc"]
fn objects_of_cuda_13_are_the_same_bytes_in_any_folder() {
    let home = crate::farm::toolkit();
    let objects = |store: &str| {
        let mut w = crate::farm::machine_with_kernels(|_| {});
        let store = w.path().join(store);
        std::fs::rename(&w.store, &store).unwrap();
        w.store = store;
        let build = ["build-torch", "--recipe", "standin", "--until", "compile", "--offline", "--no-compiler-cache"];
        Ran::of(w.xtask(&build).arg("--cuda-home").arg(&home), w.path()).exits(0);
        let folder = crate::farm::only_work_folder(&w).join("src/build/caffe2/CMakeFiles/kernels.dir/__/cuda");
        ["k0.cu.o", "k1.cu.o", "k2.cu.o"].map(|name| std::fs::read(folder.join(name)).unwrap())
    };
    let (here, there) = (objects("store-of-one"), objects("a-longer-name-of-the-other-store"));
    for (n, (here, there)) in here.iter().zip(&there).enumerate() {
        // What has the number in its name.
        assert!(
            memchr::memmem::find(here, b"_GLOBAL__N_").is_some(),
            "k{n}.cu.o has nothing of an anonymous namespace"
        );
        assert!(here == there, "k{n}.cu.o is another one in another folder");
    }
}

/// nvcc 13.0 takes Clang up to 20 as host compiler.
#[test]
#[ignore = "takes too much: downloads nvcc and 93 MB of Debian's packages"]
fn nvcc_compiles_with_the_locked_clang_and_reads_nothing_of_the_machine() {
    let home = crate::farm::toolkit();
    let w = crate::farm::machine_with_kernels(crate::toolchain::bring_real_packages);
    let build = ["build-torch", "--recipe", "standin", "--until", "compile", "--offline", "--no-compiler-cache"];
    let mut command = w.xtask(&build);
    command.arg("--cuda-home").arg(&home).env_remove("CC").env_remove("CXX");
    Ran::of(&mut command, w.path()).exits(0);
    let folder = crate::farm::only_work_folder(&w);
    for name in ["k0.cu.o", "k1.cu.o", "k2.cu.o"] {
        let object = std::fs::read(folder.join("src/build/caffe2/CMakeFiles/kernels.dir/__/cuda").join(name)).unwrap();
        assert!(memchr::memmem::find(&object, b"clang version 19.1.7").is_some(), "{name}");
    }
    let ninja = folder.join("deps/buildenv/bin/ninja");
    let mut deps = std::process::Command::new(ninja);
    let read = Ran::of(deps.args(["-t", "deps"]).current_dir(folder.join("src/build")), Path::new("-")).stdout;
    assert!(read.contains("cuda/k0.cu"), "{read}");
    assert_eq!(read.lines().find(|line| line.starts_with("    /usr/")), None);
}

/// The recipe says what the stock wheel does.
#[test]
fn the_recipe_for_cuda_13_depends_on_what_the_stock_wheel_depends_on() {
    let metadata = std::fs::read_to_string(root().join("tests/drafts/torch-2.12.1.METADATA")).unwrap();
    let mut stock: Vec<&str> = metadata
        .lines()
        .filter_map(|l| l.strip_prefix("Requires-Dist: "))
        .filter(|l| l.ends_with("platform_system == \"Linux\""))
        .collect();
    let workspace = torchmill::recipe::Workspace { root: root() };
    for name in ["torch-2.12.1-cu130", "torch-2.12.1-cu130-sm90"] {
        let recipe = workspace.load(name).unwrap();
        let cuda = recipe.cuda.unwrap();
        let mut ours: Vec<&str> = cuda.requires.iter().map(String::as_str).collect();
        stock.sort_unstable();
        ours.sort_unstable();
        assert_eq!(ours, stock, "{name}");
        let packages: Vec<(String, String)> = cuda.packages().collect();
        assert!(packages.contains(&("cuda-toolkit".into(), "13.0.2".into())), "{packages:?}");
        assert!(packages.iter().any(|(n, v)| n == "nvidia-cublas" && v.contains(">=13.1.0.3")), "{packages:?}");
    }
}

/// Of a report of `inspect` what the build decides, whatever Python it was for.
fn decided(report: &serde_json::Value) -> serde_json::Value {
    type Map = serde_json::Map<String, serde_json::Value>;
    let libraries = report["libraries"].as_array().unwrap().iter();
    let needed: Map = libraries
        .map(|library| (library["path"].as_str().unwrap().to_owned(), library["needed"].clone()))
        .filter(|(path, _)| path.starts_with("torch/lib/"))
        .collect();
    let names = ["commit", "cuda", "cxx11_abi", "cxx_flags", "version"];
    let torch: Map = names.into_iter().map(|name| (name.to_owned(), report["torch"][name].clone())).collect();
    serde_json::json!({
        "backends": report["backends"],
        "gpu": report["gpu"],
        "needed": needed,
        "sizes": { "torch/bin": report["sizes"]["torch/bin"] },
        "torch": torch,
    })
}

/// What [`decided`] was of the stock wheel, read on 2026-11-28.
fn noted_of_stock() -> serde_json::Value {
    let text = std::fs::read_to_string(root().join("tests/drafts/torch-2.12.1.stock.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// What most objects of a library are compiled for, as TORCH_CUDA_ARCH_LIST has it: PyTorch's list files have a few
/// compiled for more.
fn compiled_for(images: &std::collections::BTreeMap<String, u64>) -> Vec<String> {
    let most = images.values().max().unwrap();
    let is_in_most = |name: String| images.get(&name).is_some_and(|n| 2 * n > *most);
    let mut numbers: Vec<u32> =
        images.keys().filter_map(|name| name.strip_prefix("cubin sm_")).map(|n| n.parse().unwrap()).collect();
    numbers.sort_unstable();
    numbers.retain(|n| is_in_most(format!("cubin sm_{n}")));
    let ptx = |n: u32| if is_in_most(format!("ptx compute_{n}")) { "+PTX" } else { "" };
    numbers.into_iter().map(|n| format!("{}.{}{}", n / 10, n % 10, ptx(n))).collect()
}

/// The recipe says what the stock wheel shows. Of some switches it shows nothing: MAGMA and the attention kernels are
/// linked in without a name of their own.
#[test]
fn the_recipes_for_cuda_13_have_the_architectures_and_switches_of_the_stock_wheel() {
    // The size of that of nvidia-cuda-nvcc 13.0.88.
    const PTXAS: u64 = 37_741_528;
    let stock = noted_of_stock();
    let flags = stock["torch"]["cxx_flags"].as_str().unwrap();
    let defines = |name: &str| flags.split_whitespace().any(|flag| flag.strip_prefix("-D") == Some(name));
    let has = |backend: &str| stock["backends"][backend].as_bool().unwrap();
    let needs = |library: &str, beginning: &str| {
        let needed = stock["needed"][format!("torch/lib/lib{library}.so")].as_array().unwrap();
        needed.iter().any(|soname| soname.as_str().unwrap().starts_with(beginning))
    };
    let switches = [
        ("BUILD_BUNDLE_PTXAS", stock["sizes"]["torch/bin"].as_u64().unwrap() > PTXAS),
        ("USE_CUDNN", needs("torch_cuda", "libcudnn.so.9")),
        ("USE_CUDSS", needs("torch_cuda", "libcudss.so")),
        ("USE_CUFILE", needs("torch_cuda", "libcufile.so")),
        ("USE_CUSPARSELT", needs("torch_cuda", "libcusparseLt.so")),
        ("USE_DISTRIBUTED", has("distributed")),
        ("USE_FBGEMM", defines("USE_FBGEMM")),
        ("USE_GLOO", has("gloo")),
        ("USE_KINETO", defines("USE_KINETO") && needs("torch_cpu", "libcupti.so")),
        ("USE_MPI", has("mpi")),
        ("USE_MSLK", defines("USE_MSLK")),
        ("USE_NCCL", has("nccl")),
        ("USE_NUMA", needs("torch_cpu", "libnuma.so")),
        ("USE_NVRTC", needs("torch_cuda", "libnvrtc.so")),
        ("USE_NVSHMEM", needs("torch_nvshmem", "libnvshmem_host.so")),
        ("USE_OPENMP", needs("torch_cpu", "libgomp.so")),
        ("USE_PYTORCH_QNNPACK", defines("USE_PYTORCH_QNNPACK")),
        ("USE_SYSTEM_NCCL", needs("torch_cuda", "libnccl.so")),
        ("USE_UCC", has("ucc")),
        ("USE_XNNPACK", defines("USE_XNNPACK")),
    ];
    let images: std::collections::BTreeMap<String, u64> = serde_json::from_value(stock["gpu"].clone()).unwrap();
    let workspace = torchmill::recipe::Workspace { root: root() };
    // Without FBGEMM: no source of it can be had. MSLK's kernels are for 10.0 and later.
    for (name, all, without) in [
        ("torch-2.12.1-cu130", true, &["USE_FBGEMM"][..]),
        ("torch-2.12.1-cu130-sm90", false, &["USE_FBGEMM", "USE_MSLK"][..]),
    ] {
        let recipe = workspace.load(name).unwrap().on("x86_64");
        let cuda = recipe.cuda.as_ref().unwrap();
        let architectures = if all { compiled_for(&images) } else { vec!["9.0".to_owned()] };
        assert_eq!(cuda.architectures, architectures, "{name}");
        assert_eq!(stock["torch"]["cuda"], cuda.version, "{name}");
        assert_eq!(stock["torch"]["commit"], recipe.torch.commit, "{name}");
        assert_eq!(stock["torch"]["cxx11_abi"], recipe.torch.cxx11_abi, "{name}");
        let is_other = |(switch, on): &&(&str, bool)| recipe.features.get(*switch) != Some(on);
        let others: Vec<&str> = switches.iter().filter(is_other).map(|(switch, _)| *switch).collect();
        assert_eq!(others, without, "{name}");
    }
}

/// What was noted of the stock wheel, held against the wheel.
#[test]
#[ignore = "takes too much: reads 474 MiB of a wheel on the package index"]
fn the_stock_wheel_for_cuda_13_is_what_was_noted_of_it() {
    let w = Workspace::new();
    let inspect = ["inspect", "pypi:torch==2.12.1", "--json", "--platform", "manylinux_2_28_x86_64"];
    let ran = w.run(&[&inspect[..], &["--python-version", "3.14"]].concat()).exits(0);
    let report: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(decided(&report), noted_of_stock());
}

/// The real toolkit of CUDA 13.
#[test]
#[ignore = "takes too much: downloads 2 GB"]
fn the_real_toolkit_of_cuda_13_is_made_of_packages_alone() {
    let w = copy_of_the_recipes();
    let ran = w.run(&[TOOLKIT_13, &["--json"]].concat()).exits(0);
    let json: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(json["nvcc"], "13.0.88");
    assert_eq!(
        json["versions"],
        serde_json::json!({ "runtime": "13.0", "cublas": "13.1.0", "cudnn": "9.20.0", "nccl": "2.29.7" })
    );
    let again = w.run(&[TOOLKIT_13, &["--json"]].concat()).exits(0);
    assert!(!again.stderr.contains("set aside"), "{}", again.stderr);
}
