//! A stand-in for PyTorch: a small CMake and Python project with the same switches, targets, files
//! and PEP 517 backend, so that every stage, failure and resume takes seconds.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::support::{Ran, Workspace, root, sha256, shared_store, tar};

const CMAKE: &str = r#"cmake_minimum_required(VERSION 3.18)
project(Torch CXX C)
set(CMAKE_CXX_STANDARD 17)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_INSTALL_MESSAGE NEVER)
option(USE_DISTRIBUTED "" ON)
option(USE_TENSORPIPE "" OFF)
option(USE_MKLDNN "" OFF)
option(USE_LIBUV "" OFF)
option(BUILD_TEST "" OFF)
set(CMAKE_LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/lib)
set(CMAKE_INSTALL_RPATH "$ORIGIN")
if(USE_MKLDNN)
  message(WARNING "no oneDNN here: switching USE_MKLDNN off")
  set(USE_MKLDNN OFF)
endif()
add_library(c10 SHARED c10/c10.cpp)
install(TARGETS c10 DESTINATION lib)
add_subdirectory(caffe2)
# As PyTorch's ATenConfig.cmake: the folder that it is installed to, as an absolute path.
file(WRITE ${CMAKE_BINARY_DIR}/ATenConfig.cmake "set(ATEN_INCLUDE_DIR \"${CMAKE_INSTALL_PREFIX}/include\")\n")
install(FILES ${CMAKE_BINARY_DIR}/ATenConfig.cmake DESTINATION share/cmake/ATen)
install(FILES torch/csrc/distributed/c10d/TCPStore.hpp DESTINATION include/torch/csrc/distributed/c10d)
"#;

const CAFFE2: &str = r#"set(d ${CMAKE_SOURCE_DIR}/torch/csrc/distributed/c10d)
file(GLOB fillers ${CMAKE_SOURCE_DIR}/fill/*.cpp)
add_library(torch_cpu SHARED ${d}/TCPStore.cpp ${d}/TCPStoreLibUvBackend.cpp ${fillers})
target_include_directories(torch_cpu PRIVATE ${CMAKE_SOURCE_DIR})
target_link_libraries(torch_cpu PUBLIC c10)
install(TARGETS torch_cpu DESTINATION lib)
"#;

const STORE_HPP: &str = r#"#pragma once
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>
namespace c10d {
struct TCPStoreOptions {
  std::uint16_t port = 29500;
  bool isServer = false;
  std::optional<std::size_t> numWorkers;
  bool waitWorkers = true;
  std::chrono::milliseconds timeout{1000};
  bool multiTenant = false;
  std::optional<int> masterListenFd;
  bool useLibUV = true;
};
class TCPStore {
 public:
  TCPStore(std::string host, const TCPStoreOptions& o);
  bool isLibUvBackend() const { return libuv_; }
  std::uint16_t getPort() const { return 1; }
  void set(const std::string& k, const std::vector<std::uint8_t>& v);
  std::vector<std::uint8_t> get(const std::string& k);
  std::int64_t add(const std::string& k, std::int64_t n);
  void wait(const std::vector<std::string>& keys);
 private:
  bool libuv_;
};
}
"#;

const STORE_CPP: &str = r#"#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <condition_variable>
#include <map>
#include <mutex>
#include <stdexcept>
namespace c10d {
namespace detail { bool libuv_available(); }
static std::mutex m;
static std::condition_variable cv;
static std::map<std::string, std::vector<std::uint8_t>> data;
static std::map<std::string, std::int64_t> counters;
TCPStore::TCPStore(std::string, const TCPStoreOptions& o) : libuv_(o.useLibUV && detail::libuv_available()) {
  if (o.useLibUV && !libuv_) throw std::runtime_error("use_libuv was requested but PyTorch was build without libuv support");
}
void TCPStore::set(const std::string& k, const std::vector<std::uint8_t>& v) { std::lock_guard<std::mutex> l(m); data[k] = v; cv.notify_all(); }
std::vector<std::uint8_t> TCPStore::get(const std::string& k) { std::lock_guard<std::mutex> l(m); return data.at(k); }
std::int64_t TCPStore::add(const std::string& k, std::int64_t n) { std::lock_guard<std::mutex> l(m); return counters[k] += n; }
void TCPStore::wait(const std::vector<std::string>& keys) {
  std::unique_lock<std::mutex> l(m);
  cv.wait(l, [&] { for (auto& k : keys) if (!data.count(k)) return false; return true; });
}
}
"#;

const BACKEND_CPP: &str = r#"#ifdef TORCH_USE_LIBUV
#include <uv.h>
static_assert(UV_VERSION_MINOR == 50, "the store is compiled against another libuv's header");
namespace c10d { namespace detail {
class Daemon { public: virtual ~Daemon() = default; virtual unsigned version() = 0; };
class LibUVStoreDaemon : public Daemon { public: unsigned version() override { return uv_version(); } };
// A function of its own: a compiler that sees through the call leaves the class out.
Daemon* start_daemon() { return new LibUVStoreDaemon(); }
bool libuv_available() { Daemon* d = start_daemon(); bool ok = d->version() >= 0x012600; delete d; return ok; }
} }
#else
namespace c10d { namespace detail { bool libuv_available() { return false; } } }
#endif
"#;

const SETUP: &str = r#"import os, subprocess, sys
from setuptools import setup
only = "--cmake-only" in sys.argv
if only:
    sys.argv.remove("--cmake-only")
here = os.path.dirname(os.path.abspath(__file__))
version = os.environ["PYTORCH_BUILD_VERSION"]
if not any(a in sys.argv for a in ("egg_info", "dist_info", "clean")):
    os.makedirs("build", exist_ok=True)
    if not os.path.exists("build/build.ninja"):
        defs = [f"-D{k}={v}" for k, v in sorted(os.environ.items()) if k.startswith(("USE_", "BUILD_", "CMAKE_"))]
        subprocess.check_call(["cmake", "-GNinja", f"-DCMAKE_INSTALL_PREFIX={here}/torch", *defs, ".."], cwd="build")
    if only:
        sys.exit()
    subprocess.check_call(["cmake", "--build", ".", "--target", "install"], cwd="build")
    with open("torch/version.py", "w") as f:
        f.write(f"from typing import Optional\n__version__ = '{version}'\ngit_version: Optional[str] = 'Unknown'\n")
setup(name="torch", version=version, packages=["torch"], package_data={"torch": ["lib/*", "include/**/*", "share/**/*"]})
"#;

/// The files of the stand-in.
pub fn files() -> BTreeMap<String, String> {
    let mut files: BTreeMap<String, String> = [
        ("CMakeLists.txt", CMAKE),
        ("caffe2/CMakeLists.txt", CAFFE2),
        ("c10/c10.cpp", "int c10_answer() { return 42; }\n"),
        ("torch/csrc/distributed/c10d/TCPStore.hpp", STORE_HPP),
        ("torch/csrc/distributed/c10d/TCPStore.cpp", STORE_CPP),
        ("torch/csrc/distributed/c10d/TCPStoreLibUvBackend.cpp", BACKEND_CPP),
        ("torch/__init__.py", "from .version import __version__\n"),
        ("setup.py", SETUP),
        (
            "pyproject.toml",
            "[build-system]\nrequires = [\"setuptools\"]\nbuild-backend = \"setuptools.build_meta:__legacy__\"\n",
        ),
        ("LICENSE", "stand-in licence\n"),
    ]
    .map(|(k, v)| (k.to_owned(), v.to_owned()))
    .into();
    for i in 0..6 {
        // __FILE__ ends up in the library: where it was built must not show.
        files.insert(format!("fill/f{i}.cpp"), format!("#include <string>\nconst char* file{i}() {{ return __FILE__; }}\nstd::string s{i}() {{ return std::string(\"{i}\") + file{i}(); }}\n"));
    }
    files
}

const SCIKIT_BUILD: &str = r#"[build-system]
requires = ["scikit-build-core"]
build-backend = "scikit_build_core.build"
[project]
name = "torch"
version = "2.6.0+standin"
[tool.scikit-build]
wheel.packages = ["torch"]
wheel.install-dir = "torch"
"#;

/// The files of a stand-in whose PEP 517 backend is scikit-build-core, as PyTorch's is from 2.14 on.
pub fn scikit_build_files() -> BTreeMap<String, String> {
    let mut files = fresh_files();
    files.remove("setup.py");
    files.insert("pyproject.toml".into(), SCIKIT_BUILD.into());
    files.insert(
        "torch/version.py".into(),
        "__version__ = '2.6.0+standin'\ngit_version: 'str | None' = 'Unknown'\n".into(),
    );
    files
}

/// As `cmake/EnvVarForwarding.cmake` of 2.12 does it: after `project()`, for names that are not set yet.
const ENVIRONMENT: &str = r#"execute_process(COMMAND ${CMAKE_COMMAND} -E environment OUTPUT_VARIABLE all OUTPUT_STRIP_TRAILING_WHITESPACE)
string(REPLACE "\n" ";" all "${all}")
foreach(line IN LISTS all)
  if(line MATCHES "^((BUILD_|USE_|CMAKE_)[A-Za-z_0-9]*)=(.*)" AND NOT DEFINED ${CMAKE_MATCH_1})
    set(${CMAKE_MATCH_1} "${CMAKE_MATCH_3}" CACHE STRING "From environment" FORCE)
  endif()
endforeach()
"#;

/// The files of a stand-in whose setup.py hands nothing to CMake, as PyTorch's from 2.12 on.
pub fn files_of_2_12() -> BTreeMap<String, String> {
    let mut files = fresh_files();
    let setup = files.get_mut("setup.py").unwrap();
    *setup = setup.replace(r#"k.startswith(("USE_", "BUILD_", "CMAKE_"))"#, "False");
    let list = files.get_mut("CMakeLists.txt").unwrap();
    *list = list.replace("project(Torch CXX C)\n", &format!("project(Torch CXX C)\n{ENVIRONMENT}"));
    files
}

/// The files of a stand-in that scikit-build-core builds and whose project is called `torch`, as PyTorch's
/// is from 2.14 on.
pub fn files_of_2_14() -> BTreeMap<String, String> {
    let mut files = scikit_build_files();
    let list = files.get_mut("CMakeLists.txt").unwrap();
    *list = list.replace(
        "project(Torch CXX C)\n",
        &format!("project(${{SKBUILD_PROJECT_NAME}} LANGUAGES CXX C)\n{ENVIRONMENT}"),
    );
    files
}

/// TensorPipe below a tree from upstream: it makes a libuv of its own unless somebody found one before. As XNNPACK
/// does, it puts what it takes for a ccache before the compilers.
const TENSORPIPE: &str = r#"find_program(CCACHE_BINARY NAMES ccache env)
if(CCACHE_BINARY)
  set(CMAKE_CXX_COMPILER_LAUNCHER "${CCACHE_BINARY}" CACHE STRING "" FORCE)
  set(CMAKE_C_COMPILER_LAUNCHER "${CCACHE_BINARY}" CACHE STRING "" FORCE)
endif()
set(CMAKE_MODULE_PATH ${CMAKE_CURRENT_SOURCE_DIR})
find_package(uv REQUIRED)
add_library(tensorpipe STATIC tensorpipe.cpp)
target_link_libraries(tensorpipe PRIVATE uv::uv)
"#;

const FIND_UV: &str = r#"if(NOT uv_FOUND)
  set(uv_VERSION "1.99.0")
  add_subdirectory(${PROJECT_SOURCE_DIR}/third_party/tensorpipe/third_party/libuv uv EXCLUDE_FROM_ALL)
  add_library(uv::uv ALIAS uv_a)
endif()
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(uv REQUIRED_VARS uv_VERSION VERSION_VAR uv_VERSION)
"#;

const USES_UV: &str = r#"#include <uv.h>
static_assert(UV_VERSION_MINOR == 50, "compiled against another libuv's header");
unsigned NAME_uv() { return uv_version(); }
"#;

/// The files of a stand-in with TensorPipe and its submodule libuv, whose newer header stands first for
/// every target, and with a Gloo that links the target `uv_a`, whose folders PyTorch's list file copies before.
pub fn files_from_upstream() -> BTreeMap<String, String> {
    let mut files = files_of_2_12();
    let list = files.get_mut("CMakeLists.txt").unwrap();
    *list = list.replace(
        "add_subdirectory(caffe2)\n",
        "set(libuv third_party/tensorpipe/third_party/libuv)\n\
         include_directories(BEFORE SYSTEM ${CMAKE_SOURCE_DIR}/${libuv}/include)\n\
         add_subdirectory(third_party/tensorpipe)\n\
         get_target_property(include_dirs uv_a INCLUDE_DIRECTORIES)\n\
         set_target_properties(uv_a PROPERTIES INTERFACE_INCLUDE_DIRECTORIES \"${include_dirs}\")\n\
         add_library(gloo STATIC third_party/gloo/gloo.cpp)\n\
         target_link_libraries(gloo PRIVATE uv_a)\n\
         add_subdirectory(caffe2)\n",
    );
    let caffe2 = files.get_mut("caffe2/CMakeLists.txt").unwrap();
    *caffe2 = caffe2.replace(
        "target_link_libraries(torch_cpu PUBLIC c10)",
        "target_link_libraries(torch_cpu PUBLIC c10 PRIVATE $<LINK_LIBRARY:WHOLE_ARCHIVE,gloo,tensorpipe>)",
    );
    let libuv = "third_party/tensorpipe/third_party/libuv";
    for (name, text) in [
        ("third_party/tensorpipe/CMakeLists.txt".to_owned(), TENSORPIPE.to_owned()),
        ("third_party/tensorpipe/Finduv.cmake".to_owned(), FIND_UV.to_owned()),
        ("third_party/tensorpipe/tensorpipe.cpp".to_owned(), USES_UV.replace("NAME", "tensorpipe")),
        ("third_party/gloo/gloo.cpp".to_owned(), USES_UV.replace("NAME", "gloo")),
        (format!("{libuv}/CMakeLists.txt"), "add_library(uv_a STATIC version.c)\n".to_owned()),
        (format!("{libuv}/version.c"), "unsigned uv_version(void) { return 99 << 8; }\n".to_owned()),
        (
            format!("{libuv}/include/uv.h"),
            "#define UV_VERSION_MINOR 99\nextern \"C\" unsigned uv_version(void);\n".to_owned(),
        ),
    ] {
        files.insert(name, text);
    }
    files
}

/// The files of a stand-in that no store has seen yet: everything is really built.
pub fn fresh_files() -> BTreeMap<String, String> {
    let mut files = files();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
    files.insert("fresh.txt".into(), format!("{now} {}", std::process::id()));
    files
}

/// A workspace with the recipe `standin`, made of `files`, locked.
pub fn workspace(files: &BTreeMap<String, String>) -> Workspace {
    workspace_with(files, |r| r)
}

/// The same, with the recipe's text changed by `edit`.
pub fn workspace_with(files: &BTreeMap<String, String>, edit: impl Fn(String) -> String) -> Workspace {
    let mut w = Workspace::new();
    w.store = shared_store();
    let bytes = tar("standin", files);
    w.write("standin.tar", &bytes);
    let real = std::fs::read_to_string(root().join("recipes/torch-2.6.0-cpu.toml")).unwrap();
    let real: toml::Table = toml::from_str(&real).unwrap();
    let python = toml::to_string(&toml::Table::from_iter([("python".to_owned(), real["python"].clone())])).unwrap();
    let whole = torchmill::recipe::Workspace { root: root() }.load("torch-2.6.0-cpu").unwrap();
    let uv_coordinate = &whole.source.iter().find(|s| s.name == "libuv").unwrap().coordinates[0];
    let recipe = format!(
        r#"schema = 1
description = "a stand-in"
[torch]
version = "2.6.0"
commit = "0123456789012345678901234567890123456789"
local = "standin"
epoch = 1738108800
{python}
[features]
USE_DISTRIBUTED = true
USE_LIBUV = true
USE_TENSORPIPE = false
USE_MKLDNN = false
BUILD_TEST = false
[libuv]
version = "1.50.0"
source = "libuv"
[limits]
disk = 64
[[source]]
name = "standin"
coordinates = ["file:standin.tar"]
into = [{{ tree = ".", strip = 1 }}]
license = "MIT"
license-files = ["standin/LICENSE"]
[[source]]
name = "libuv"
coordinates = ["{uv_coordinate}"]
into = []
license = "MIT"
license-files = ["libuv1-1.50.0/LICENSE"]
"#
    );
    w.write("recipes/standin.toml", edit(recipe));
    relock(&w, &bytes);
    fetch(&w);
    w
}

/// Fetches what the build needs, three times if need be.
fn fetch(w: &Workspace) {
    let mut last = String::new();
    for _ in 0..3 {
        let ran = w.run(&["fetch", "--recipe", "standin", "--json"]);
        if ran.code == Some(0) {
            return;
        }
        let json: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap_or_default();
        let code = json["error"]["code"].as_str().unwrap_or("").to_owned();
        if !matches!(code.as_str(), "fetch" | "index" | "no-index" | "no-debian-mirror") {
            // Not the network: the test itself shall meet it.
            return;
        }
        last = json["error"]["message"].as_str().unwrap_or("").to_owned();
    }
    panic!("what the build needs cannot be downloaded here: {last}");
}

/// Writes the lock: packages and libuv from the real lock, the rest by hashing.
pub fn relock(w: &Workspace, standin: &[u8]) {
    use torchmill::recipe::{Lock, Locked};
    let real: Lock =
        toml::from_str(&std::fs::read_to_string(root().join("recipes/torch-2.6.0-cpu.lock")).unwrap()).unwrap();
    let recipe = torchmill::recipe::Workspace { root: w.path().to_owned() }.load("standin").unwrap();
    let mut lock = Lock { recipe: Lock::recipe_digest(&recipe), ..real.clone() };
    lock.source = [
        ("standin".to_owned(), Locked { sha256: sha256(standin), size: standin.len() as u64, coordinate: None }),
        ("libuv".to_owned(), real.source["libuv"].clone()),
    ]
    .into();
    // Verify needs the real torch, so its packages need not be fetched.
    lock.python.values_mut().flat_map(|m| m.values_mut()).for_each(|p| p.verify.clear());
    std::fs::write(w.path().join("recipes/standin.lock"), lock.to_toml("standin").unwrap()).unwrap();
}

/// `build-torch` of the stand-in until the bundle (verify needs the real torch).
pub fn build(w: &Workspace, more: &[&str]) -> Ran {
    Ran::of(&mut command(w, more), w.path())
}

pub fn command(w: &Workspace, more: &[&str]) -> std::process::Command {
    let mut args = vec!["build-torch", "--recipe", "standin", "--until", "bundle"];
    args.extend(more);
    w.xtask(&args)
}

/// The work folder that a plan names.
pub fn work_folder(w: &Workspace) -> PathBuf {
    let ran = w.run(&["build-torch", "--recipe", "standin", "--dry-run", "--json"]).exits(0);
    let json: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    PathBuf::from(json["plan"]["work"].as_str().unwrap().replace("[DIR]", w.path().to_str().unwrap()))
}

/// Builds until provenance and puts what came out into `dist/`, as `build-torch` does.
pub fn dist(w: &Workspace) -> Dist {
    let run = |until: &str| {
        let ran = w.run(&["build-torch", "--recipe", "standin", "--until", until, "--json"]).exits(0);
        let json: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        PathBuf::from(
            json["outcome"]["stopped"]["folder"].as_str().unwrap().replace("[DIR]", w.path().to_str().unwrap()),
        )
    };
    let dir = w.path().join("dist");
    std::fs::create_dir_all(&dir).unwrap();
    let mut found = Vec::new();
    for until in ["wheel", "bundle", "provenance"] {
        for entry in std::fs::read_dir(run(until)).unwrap().flatten() {
            let name = entry.file_name().to_str().unwrap().to_owned();
            if entry.path().is_file() && !name.ends_with(".sha256") {
                std::fs::copy(entry.path(), dir.join(&name)).unwrap();
                found.push(dir.join(name));
            }
        }
    }
    let with = |end: &str| found.iter().find(|p| p.to_str().unwrap().ends_with(end)).unwrap().clone();
    Dist {
        wheel: with(".whl"),
        bundle: with(".tar.gz"),
        statement: with(".provenance.json"),
        manifest: with(".manifest.json"),
        sbom: with(".cdx.json"),
        dir,
    }
}

pub struct Dist {
    pub dir: PathBuf,
    pub wheel: PathBuf,
    pub bundle: PathBuf,
    pub statement: PathBuf,
    pub manifest: PathBuf,
    pub sbom: PathBuf,
}
