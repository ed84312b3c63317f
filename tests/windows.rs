//! Windows without Windows: CMake's own branches for it, run by a toolchain that claims to be MSVC; real
//! libraries of Windows, linked by mingw-w64; the recipes; and the store itself, on Wine.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Ran, root, shared_store};
use torchmill::toolchain::mingw::Mingw;

fn xtask(args: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_torchmill"));
    command.args(args).current_dir(root()).env("TORCHMILL_STORE", shared_store()).env("NO_COLOR", "1");
    Ran::of(&mut command, Path::new("/nowhere"))
}

/// The compiler for Windows.
fn mingw() -> Mingw {
    Mingw::find().expect("mingw-w64")
}

#[test]
fn a_recipe_for_another_system_says_what_can_be_done_here() {
    for (recipe, system) in [("torch-2.6.0-windows-cpu", "Windows"), ("torch-2.6.0-macos-arm64", "macOS")] {
        let ran = xtask(&["build-torch", "--recipe", recipe, "--dry-run"]).exits(2);
        let ran = ran.says(&format!("the recipe {recipe} is for {system}; this is Linux"));
        assert_eq!(ran.stderr.contains("cargo xtask canary --target windows"), system == "Windows", "{}", ran.stderr);
    }
}

#[test]
fn the_locks_name_wheels_of_their_system() {
    for (recipe, machine, tag) in [
        ("torch-2.6.0-windows-cpu", "x86_64", "win_amd64"),
        ("torch-2.12.1-windows-cpu", "x86_64", "win_amd64"),
        ("torch-2.12.1-windows-cu130", "x86_64", "win_amd64"),
        ("torch-2.6.0-macos-arm64", "aarch64", "macosx_"),
    ] {
        let text = std::fs::read_to_string(root().join(format!("recipes/{recipe}.lock"))).unwrap();
        let lock: torchmill::recipe::Lock = toml::from_str(&text).unwrap();
        for (minor, wheels) in &lock.python[machine] {
            let names: Vec<String> =
                wheels.build.iter().chain(&wheels.verify).map(|l| l.coordinate.as_ref().unwrap().file_name()).collect();
            for name in &names {
                assert!(name.contains(tag) || name.contains("-any"), "{recipe}, Python {minor}: {name}");
            }
            assert!(names.iter().any(|n| n.starts_with("ninja-") && n.contains(tag)), "{recipe}: {names:?}");
        }
    }
}

#[test]
fn what_a_recipe_does_without_must_be_in_its_base() {
    let w = crate::support::Workspace::new();
    for name in ["_common", "torch-2.6.0-cpu", "torch-2.6.0-windows-cpu"] {
        let text = std::fs::read_to_string(root().join(format!("recipes/{name}.toml"))).unwrap();
        w.write(&format!("recipes/{name}.toml"), text.replace("\"tensorpipe\", \"libnop\"", "\"tensorpype\""));
    }
    for entry in std::fs::read_dir(root().join("patches/pytorch-2.6.0")).unwrap().flatten() {
        w.write(
            &format!("patches/pytorch-2.6.0/{}", entry.file_name().to_str().unwrap()),
            std::fs::read(entry.path()).unwrap(),
        );
    }
    w.run(&["tree", "--recipe", "torch-2.6.0-windows-cpu"])
        .exits(2)
        .says("'without' names 'tensorpype', which the base does not have")
        .says("did you mean 'tensorpipe'?");
}

/// A toolchain file for a compiler that claims to be MSVC: CMake takes its branches for WIN32 and MSVC, and
/// writes the commands that it would run.
const MSVC: &str = r#"
set(CMAKE_SYSTEM_NAME Windows)
set(CMAKE_SYSTEM_PROCESSOR AMD64)
foreach(language C CXX)
  set(CMAKE_${language}_COMPILER "${CMAKE_CURRENT_LIST_DIR}/cl")
  set(CMAKE_${language}_COMPILER_ID_RUN TRUE)
  set(CMAKE_${language}_COMPILER_ID MSVC)
  set(CMAKE_${language}_COMPILER_VERSION 19.40)
  set(CMAKE_${language}_COMPILER_FORCED TRUE)
  set(CMAKE_${language}_COMPILER_WORKS TRUE)
  set(MSVC_${language}_ARCHITECTURE_ID x64)
  set(CMAKE_${language}_STANDARD_COMPUTED_DEFAULT 17)
endforeach()
set(CMAKE_LINKER "${CMAKE_CURRENT_LIST_DIR}/cl")
set(CMAKE_MT "${CMAKE_CURRENT_LIST_DIR}/cl")
set(CMAKE_RC_COMPILER "${CMAKE_CURRENT_LIST_DIR}/cl")
"#;

/// PyTorch's list file, as far as it asks about Windows and libuv: its lines of 2.6.0.
const TORCH: &str = r#"
cmake_minimum_required(VERSION 3.18)
project(Torch CXX C)
set(USE_DISTRIBUTED ON)
set(USE_TENSORPIPE ON)
set(USE_GLOO ON)
set(USE_LIBUV ON)
if(WIN32)
  set(USE_TENSORPIPE OFF)
  if(USE_DISTRIBUTED AND NOT DEFINED ENV{libuv_ROOT})
    find_library(libuv_tmp_LIBRARY NAMES uv libuv HINTS $ENV{CONDA_PREFIX}\\Library NO_DEFAULT_PATH)
    if(NOT libuv_tmp_LIBRARY)
      set(USE_DISTRIBUTED OFF)
      set(USE_GLOO OFF)
    endif()
  endif()
endif()
if(USE_GLOO)
  add_subdirectory(gloo)
endif()
add_library(torch_cpu SHARED store.cpp)
target_link_libraries(torch_cpu PRIVATE gloo)
add_library(torch_python SHARED python.cpp)
"#;

/// Gloo's, likewise.
const GLOO: &str = r#"
if(USE_LIBUV)
  if(TARGET uv_a)
  else()
    message(FATAL_ERROR "Gloo looks for a libuv of its own")
  endif()
endif()
add_library(gloo STATIC gloo.cpp)
target_link_libraries(gloo PRIVATE uv_a)
if(MSVC AND USE_LIBUV)
  add_custom_command(TARGET gloo POST_BUILD
    COMMAND ${CMAKE_COMMAND} -E copy_if_different "${libuv_DLL_PATH}" $<TARGET_FILE_DIR:gloo>)
endif()
"#;

/// The folder of cmake and ninja of a build that was configured, and what that build's toolchain file would say if `dir`
/// were its work folder.
fn configured_as_in(dir: &Path) -> (PathBuf, String) {
    let w = crate::standin::workspace(&crate::standin::fresh_files());
    w.run(&["build-torch", "--recipe", "standin", "--until", "configure"]).exits(0);
    let work = crate::standin::work_folder(&w);
    let lines = std::fs::read_to_string(work.join("toolchain.cmake")).unwrap();
    let ours = lines.replace(work.to_str().unwrap(), dir.to_str().unwrap());
    assert_ne!(ours, lines);
    (std::fs::canonicalize(work.join("deps/buildenv/bin")).unwrap(), ours)
}

#[test]
fn cmakes_branches_for_msvc_give_libuv_to_the_store_and_to_gloo() {
    let dir = tempfile::tempdir().unwrap();
    let (tools, ours) = configured_as_in(dir.path());
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    };
    let cl = write("cl", "#!/bin/sh\nexit 0\n");
    std::fs::set_permissions(cl, std::fs::Permissions::from_mode(0o755)).unwrap();
    let toolchain = write("toolchain.cmake", &format!("{MSVC}{ours}"));
    for file in
        ["uv/include/uv.h", "uv/lib/uv.lib", "uv/bin/uv.dll", "src/store.cpp", "src/python.cpp", "src/gloo/gloo.cpp"]
    {
        write(file, "");
    }
    write("src/CMakeLists.txt", TORCH);
    write("src/gloo/CMakeLists.txt", GLOO);
    let uv = dir.path().join("uv");
    let modules = root().join("patches/cmake");
    // Where those lines have it.
    write(
        "project.cmake",
        &format!(
            "set(TORCHMILL_LIBUV_ROOT [==[{}]==])\nset(TORCHMILL_FEATURES USE_DISTRIBUTED USE_GLOO USE_TENSORPIPE)\n\
             include([==[{}]==])\ninclude([==[{}]==])\n",
            uv.display(),
            modules.join("windows.cmake").display(),
            modules.join("torchmill.cmake").display()
        ),
    );
    let build = dir.path().join("build");
    let configure = |more: &[&str]| {
        let mut cmake = Command::new(tools.join("cmake"));
        cmake
            .args(["-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release", "-S"])
            .arg(dir.path().join("src"))
            .arg("-B")
            .arg(&build)
            .arg(format!("-DCMAKE_TOOLCHAIN_FILE={}", toolchain.display()))
            .arg(format!("-DCMAKE_MAKE_PROGRAM={}", tools.join("ninja").display()))
            .args(more)
            .env_remove("libuv_ROOT");
        Ran::of(&mut cmake, dir.path())
    };
    configure(&[]).exits(0);
    // What is read back: nothing was switched off in silence.
    let report = std::fs::read_to_string(build.join("torchmill-report.txt")).unwrap();
    for line in [
        "torch_cpu=libuv",
        "torch_python=libuv",
        "feature:USE_DISTRIBUTED=ON",
        "feature:USE_GLOO=ON",
        "feature:USE_TENSORPIPE=OFF",
    ] {
        assert!(report.lines().any(|l| l == line), "{line} is not in\n{report}");
    }
    let ninja = Command::new(tools.join("ninja")).arg("-C").arg(&build).args(["-t", "commands"]).output().unwrap();
    let commands = String::from_utf8(ninja.stdout).unwrap();
    let of =
        |what: &str| commands.lines().find(|l| l.contains(what)).unwrap_or_else(|| panic!("no {what} in {commands}"));
    // Every compile goes through the launcher.
    let launcher = format!("{0}/bin/torchmill __launch {0} ", dir.path().display());
    let compiles: Vec<&str> = commands.lines().filter(|l| l.contains(" -c ") && l.contains(".cpp")).collect();
    assert_eq!(compiles.len(), 3, "{commands}");
    assert!(compiles.iter().all(|compile| compile.starts_with(&launcher)), "{commands}");
    let include = format!("{}/include", uv.display());
    let store = of("/store.cpp");
    assert!(store.contains("-DTORCH_USE_LIBUV") && store.contains(&include), "{store}");
    assert!(of("/python.cpp").contains("-DTORCH_USE_LIBUV"));
    assert!(of("/gloo.cpp").contains(&include));
    let link = of("/out:torch_cpu.dll");
    for library in [format!("{}/lib/uv.lib", uv.display()), "ws2_32.lib".into(), "iphlpapi.lib".into()] {
        assert!(link.contains(&library), "{library} is not linked: {link}");
    }
    assert!(!link.contains("uv_version"), "an option of other linkers: {link}");
    // uv.dll is beside Gloo, and beside torch_cpu.dll once it is installed.
    let dll = format!("{}/bin/uv.dll", uv.display());
    assert!(commands.contains(&format!("copy_if_different {dll}")), "{commands}");
    let install = std::fs::read_to_string(build.join("cmake_install.cmake")).unwrap();
    assert!(install.contains(&dll) && install.contains("${CMAKE_INSTALL_PREFIX}/lib"), "{install}");

    // Half a libuv is found out before an hour of compiling.
    std::fs::remove_file(uv.join("bin/uv.dll")).unwrap();
    configure(&[]).exits(1).says("no bin/uv.dll under");
}

/// What MSVC makes of a class with virtual functions, in assembler: its type descriptor, and the complete
/// object locator that points at it.
const RTTI: &str = r#"
    .section .rdata,"dr"
    .balign 8
locator:
    .long 1, 0, 0
    .rva descriptor
    .rva hierarchy
    .rva locator
hierarchy:
    .long 0, 0, 1
    .rva bases
bases:
    .long 0
    .quad locator
    .globl vftable
vftable:
    .quad DllMain
    .data
    .balign 8
descriptor:
    .quad vftable, 0
    .asciz ".?AVLibUVStoreDaemon@detail@c10d@@"
"#;

#[test]
#[ignore = "needs mingw-w64"]
fn a_library_that_a_linker_of_windows_made_is_told_from_one_without_the_store() {
    let compiler = mingw();
    let dir = tempfile::tempdir().unwrap();
    let library = dir.path().join("torch_cpu.dll");
    let text = dir.path().join("text.c");
    // The error's text and the name of the class as a text: in every build.
    std::fs::write(
        &text,
        "const char* const texts[] = {\"use_libuv was requested but PyTorch was build without libuv support\", \"LibUVStoreDaemon\"};\n\
         __declspec(dllexport) const char* say(int i) { return texts[i]; }\n\
         int DllMain(void) { return 1; }\n",
    )
    .unwrap();
    let rtti = dir.path().join("rtti.s");
    std::fs::write(&rtti, RTTI).unwrap();
    for (sources, code) in [(vec![&text, &rtti], 0), (vec![&text], 1)] {
        let linked =
            Command::new(&compiler.cc).args(["-shared", "-O1", "-o"]).arg(&library).args(sources).output().unwrap();
        assert!(linked.status.success(), "{}", String::from_utf8_lossy(&linked.stderr));
        let ran = xtask(&["inspect", library.to_str().unwrap(), "--json"]).exits(code);
        let report: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(report["libraries"][0]["format"], "pe");
        assert_eq!(report["libuv"], code == 0, "{report}");
    }
}

/// Links `sources` into the DLL `to`, against the DLLs `with`.
fn dll(compiler: &Mingw, to: &Path, source: &str, with: &[&Path]) {
    std::fs::create_dir_all(to.parent().unwrap()).unwrap();
    let text = to.with_extension("c");
    std::fs::write(&text, format!("__declspec(dllexport) {source}")).unwrap();
    let linked = Command::new(&compiler.cc).args(["-shared", "-O1", "-o"]).arg(to).arg(&text).args(with).output();
    let linked = linked.unwrap();
    assert!(linked.status.success(), "{}", String::from_utf8_lossy(&linked.stderr));
    std::fs::remove_file(text).unwrap();
}

#[test]
#[ignore = "needs mingw-w64"]
fn what_a_windows_wheel_needs_and_windows_lacks_comes_into_it() {
    use torchmill::artifact::repair::pe::complete;
    let compiler = mingw();
    let dir = tempfile::tempdir().unwrap();
    let (mkl, cuda) = (dir.path().join("mkl/bin"), dir.path().join("cuda/bin"));
    dll(&compiler, &mkl.join("libIOMP5md.dll"), "int omp(void) { return 1; }", &[]);
    dll(&compiler, &cuda.join("cudnn_ops64_9.dll"), "int ops(void) { return 1; }", &[]);
    dll(&compiler, &cuda.join("cudnn_ops64_8.dll.txt"), "int ops(void) { return 1; }", &[]);
    dll(&compiler, &cuda.join("cudnn64_9.dll"), "int dnn(void) { return 1; }", &[]);
    let blas_lt = cuda.join("cublasLt64_12.dll");
    dll(&compiler, &blas_lt, "int lt(void) { return 1; }", &[]);
    let blas = cuda.join("cublas64_12.dll");
    dll(&compiler, &blas, "int blas(void) { int lt(void); return lt(); }", &[&blas_lt]);
    let driver = dir.path().join("driver/nvcuda.dll");
    dll(&compiler, &driver, "int driver(void) { return 1; }", &[]);
    let root = dir.path().join("tree");
    let own = root.join("torch/lib/c10.dll");
    dll(&compiler, &own, "int own(void) { return 1; }", &[]);
    dll(
        &compiler,
        &root.join("torch/lib/torch_cpu.dll"),
        "int f(void) { int omp(void), blas(void), dnn(void), own(void), driver(void); return omp() + blas() + dnn() + own() + driver(); }",
        &[&mkl.join("libIOMP5md.dll"), &blas, &cuda.join("cudnn64_9.dll"), &own, &driver],
    );
    let missing = complete(&root, "torch/lib", &[dir.path().join("mkl")]).unwrap_err();
    assert!(missing.what().contains("torch_cpu.dll needs"), "{}", missing.what());
    let taken = complete(&root, "torch/lib", &[dir.path().join("mkl"), dir.path().join("cuda")]).unwrap();
    let mut names: Vec<&str> = taken.iter().map(|g| g.name.as_str()).collect();
    names.sort_unstable();
    // What imports ask for, what those ask for in turn, and what cuDNN loads when it runs; not the driver's.
    let wanted = ["cublas64_12.dll", "cublasLt64_12.dll", "cudnn64_9.dll", "cudnn_ops64_9.dll", "libIOMP5md.dll"];
    assert!(wanted.iter().all(|w| root.join("torch/lib").join(w).is_file()), "{names:?}");
    // The first try had taken OpenMP's already.
    assert!(names.iter().all(|n| wanted.contains(n)), "{names:?}");
    assert!(!root.join("torch/lib/nvcuda.dll").exists());
    let again = complete(&root, "torch/lib", &[]).unwrap();
    assert!(again.is_empty(), "{again:?}");
}

#[test]
#[ignore = "needs mingw-w64 and Wine"]
fn a_dll_without_an_import_library_gets_one_that_links() {
    use torchmill::toolchain::cuda::import_library;
    let compiler = mingw();
    let dir = tempfile::tempdir().unwrap();
    let of = |name: &str| dir.path().join(name);
    let text = "int twice(int x) { return 2 * x; }\n__declspec(dllexport) int answer = 42;";
    dll(&compiler, &of("demo64_7.dll"), text, &[]);
    import_library(&of("demo64_7.dll"), &of("demo.lib")).unwrap();
    import_library(&of("demo64_7.dll"), &of("again.lib")).unwrap();
    assert_eq!(std::fs::read(of("demo.lib")).unwrap(), std::fs::read(of("again.lib")).unwrap());
    let program = "#include <stdio.h>\nint twice(int);\n__declspec(dllimport) extern int answer;\n\
                   int main(void) { printf(\"%d %d\\n\", twice(21), answer); return 0; }\n";
    std::fs::write(of("main.c"), program).unwrap();
    let mut link = Command::new(&compiler.cc);
    let linked = link.arg("-o").arg(of("main.exe")).arg(of("main.c")).arg(of("demo.lib")).output().unwrap();
    assert!(linked.status.success(), "{}", String::from_utf8_lossy(&linked.stderr));
    let wine = torchmill::toolchain::mingw::Wine::find(&of("drive")).unwrap();
    let said = Command::new(wine.program()).arg(of("main.exe")).env_clear().envs(wine.env()).output().unwrap();
    wine.stop();
    assert_eq!(String::from_utf8_lossy(&said.stdout).trim(), "42 42", "{}", String::from_utf8_lossy(&said.stderr));

    // Not of a program, nor of what only looks like a DLL.
    assert!(import_library(&of("main.exe"), &of("no.lib")).unwrap_err().what().contains("exports nothing by name"));
    assert!(import_library(&of("main.c"), &of("no.lib")).unwrap_err().what().contains("no DLL for x86-64"));
    assert!(!of("no.lib").exists());
}

#[test]
#[ignore = "needs mingw-w64 and Wine"]
fn the_store_of_2_6_runs_on_windows_with_peers_on_linux() {
    let ran = xtask(&["canary", "--target", "windows", "--recipe", "torch-2.6.0-cpu", "--json"]).exits(0);
    let json: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let meetings = json["meetings"].as_array().unwrap();
    let servers: Vec<&str> = meetings.iter().map(|m| m["server"].as_str().unwrap()).collect();
    assert_eq!(servers, ["windows", "windows", "linux"]);
    assert!(meetings.iter().any(|m| m["one_killed"] == true));
    assert_eq!(meetings[1]["clients"], serde_json::json!(["linux", "windows"]));
    assert!(meetings.iter().all(|m| m["operations"].as_u64().unwrap() >= 6400), "{json}");
}
