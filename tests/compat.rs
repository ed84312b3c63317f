//! `compat`: packages held against a torch, both made here by this machine's compilers and packed like wheels; and the
//! verdicts held against what this machine's loader does with the same files.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{self, Answer, Ran, Server, fat};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// What an extension calls where a check fails: its mangled name shows which strings a torch has.
const C10: &str = r#"
#include <string>
namespace c10 { namespace detail { void torchCheckFail(const char*, const char*, unsigned, const std::string& s) { (void)s; } } }
"#;
const TORCH_CPU: &str = r#"
namespace at { int add(int a) { return a; } }
extern "C" int aoti_torch_empty(void) { return 0; }
// With torch.distributed: its store, without libuv.
namespace c10d { namespace detail { struct TCPStoreMasterDaemon { virtual ~TCPStoreMasterDaemon(); }; TCPStoreMasterDaemon::~TCPStoreMasterDaemon() {} } }
"#;
const TORCH_PYTHON: &str = "extern \"C\" int THPVariable_Wrap(void) { return 0; }";
const CUDA: &str = "namespace c10 { namespace cuda { int current_device() { return 0; } } }";

/// A folder for one test, with a store of its own.
struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_torchmill"));
        command.args(args).current_dir(self.dir.path()).env("NO_COLOR", "1").env("TORCHMILL_STORE", self.path("store"));
        command
    }

    fn run(&self, args: &[&str]) -> Ran {
        Ran::of(&mut self.command(args), self.dir.path())
    }

    fn json(&self, args: &[&str], code: i32) -> Value {
        let ran = self.run(&[&["compat", "--json"], args].concat()).exits(code);
        serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{e} in\n{}\n{}", ran.stdout, ran.stderr))
    }

    /// Compiles `source` to `site/PATH`, against the torch in `site` by the `-l` flags that are given.
    fn library(&self, site: &str, path: &str, source: &str, flags: &[&str]) {
        let code = self.write("lib.cpp", source);
        let out = self.path(&format!("{site}/{path}"));
        std::fs::create_dir_all(out.parent().unwrap()).unwrap();
        let soname = format!("-Wl,-soname,{}", out.file_name().unwrap().to_str().unwrap());
        let status = Command::new("c++")
            .args(["-shared", "-fPIC", "-O1", &soname, "-o"])
            .arg(&out)
            .arg(&code)
            .arg(format!("-L{}", self.path("site/torch/lib").display()))
            .args(flags)
            .status();
        assert!(status.unwrap().success());
    }

    /// A torch in `site`, as pip installs it.
    fn torch(&self, version: &str, cuda: bool, flags: &[&str]) {
        self.library("site", "torch/lib/libc10.so", C10, flags);
        self.library("site", "torch/lib/libtorch_cpu.so", TORCH_CPU, &["-Wl,--no-as-needed", "-lc10"]);
        self.library("site", "torch/lib/libtorch_python.so", TORCH_PYTHON, &["-Wl,--no-as-needed", "-ltorch_cpu"]);
        if cuda {
            // CUDA's own library is another package's; torch needs it.
            self.library("cuda", "libcudart.so.12", "extern \"C\" int cudaMalloc(void) { return 0; }", &[]);
            let cudart = self.path("cuda/libcudart.so.12");
            let needed = ["-Wl,--no-as-needed", "-lc10", cudart.to_str().unwrap()];
            self.library("site", "torch/lib/libc10_cuda.so", CUDA, &needed);
        }
        let cuda = if cuda { "'12.4'" } else { "None" };
        self.write("site/torch/version.py", format!("__version__ = '{version}'\ncuda: Optional[str] = {cuda}\n"));
        self.package("site", "torch", version, "cp311-cp311-linux_x86_64", "");
    }

    /// METADATA and WHEEL of a package in `site`; a wheel of it is packed by [`Bench::wheel`].
    fn package(&self, site: &str, name: &str, version: &str, tag: &str, more: &str) {
        let info = format!("{site}/{name}-{version}.dist-info");
        let metadata = format!("Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{more}\nA description.\n");
        self.write(&format!("{info}/METADATA"), metadata);
        self.write(&format!("{info}/WHEEL"), format!("Wheel-Version: 1.0\nTag: {tag}\n"));
    }

    /// Packs all of `site` as a wheel of this name, with a RECORD.
    fn wheel(&self, site: &str, filename: &str) -> PathBuf {
        let root = self.path(site);
        let mut files = BTreeMap::new();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().flatten().map(|e| e.path()) {
                if entry.is_dir() {
                    folders.push(entry);
                } else {
                    let name = entry.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                    files.insert(name, std::fs::read(&entry).unwrap());
                }
            }
        }
        let info =
            files.keys().find_map(|n| n.split_once(".dist-info/").map(|(d, _)| format!("{d}.dist-info"))).unwrap();
        let line = |(name, bytes): (&String, &Vec<u8>)| {
            format!("{name},sha256={},{}\n", URL_SAFE_NO_PAD.encode(Sha256::digest(bytes)), bytes.len())
        };
        let record: String = files.iter().map(line).collect();
        files.insert(format!("{info}/RECORD"), record.into_bytes());
        let mut zip = zip::ZipWriter::new(std::fs::File::create(self.path(filename)).unwrap());
        for (name, bytes) in files {
            zip.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
            zip.write_all(&bytes).unwrap();
        }
        zip.finish().unwrap();
        self.path(filename)
    }

    /// A package with one extension module `NAME/_C.so`, in a folder of its own, packed as a wheel.
    fn extension(&self, name: &str, source: &str, flags: &[&str], more: &str) -> String {
        self.library(name, &format!("{name}/_C.so"), source, flags);
        self.package(name, name, "1.0", "cp311-cp311-linux_x86_64", more);
        let filename = format!("{name}-1.0-cp311-cp311-linux_x86_64.whl");
        self.wheel(name, &filename);
        filename
    }
}

const LINKED: &[&str] = &["-Wl,--no-as-needed", "-ltorch_cpu", "-lc10", "-ltorch_python"];
const ADDS: &str = "namespace at { int add(int); } extern \"C\" int f(void) { return at::add(1); }";
const FAILS: &str = "#include <string>\nnamespace c10 { namespace detail { void torchCheckFail(const char*, const char*, unsigned, const std::string&); } }\n extern \"C\" void f(void) { c10::detail::torchCheckFail(\"\", \"\", 1, std::string(\"x\")); }";
const GONE: &str = "namespace at { int gone(int); } extern \"C\" int f(void) { return at::gone(1); }";

/// All of `folder` as a tar archive, below `top`.
fn packed(folder: &Path, top: &str) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    // A linker may leave holes in what it writes.
    tar.sparse(false);
    tar.append_dir_all(top, folder).unwrap();
    tar.into_inner().unwrap()
}

/// What the loader says to `library` in a process that has torch's libraries loaded: `None` where it loads.
fn loader(torch: &Path, library: &Path) -> Option<String> {
    const LOAD: &str = "\
import ctypes, os, sys
for name in sorted(os.listdir(sys.argv[1])):
    if 'c10_cuda' not in name:
        ctypes.CDLL(os.path.join(sys.argv[1], name))
try:
    ctypes.CDLL(sys.argv[2])
except OSError as e:
    print(e)
    sys.exit(1)";
    let out = Command::new("python3")
        .args(["-c", LOAD])
        .args([torch, library])
        .env("LD_LIBRARY_PATH", torch)
        .output()
        .unwrap();
    (!out.status.success()).then(|| String::from_utf8_lossy(&out.stdout).into_owned())
}

/// What is said of each package of a list, by its name.
fn by_package<'v>(list: &'v Value, said: &str) -> Vec<(&'v str, &'v str)> {
    let pair = |p: &'v Value| (p["package"].as_str().unwrap(), p[said].as_str().unwrap());
    list.as_array().unwrap().iter().map(pair).collect()
}

#[test]
fn the_verdict_is_that_of_this_machines_loader() {
    let b = Bench::new();
    b.torch("2.6.0+cpu.libuv", false, &[]);
    let torch = b.wheel("site", "torch-2.6.0+cpu.libuv-cp311-cp311-linux_x86_64.whl");
    let strings = &["-Wl,--no-as-needed", "-ltorch_cpu", "-lc10", "-D_GLIBCXX_USE_CXX11_ABI=0"];
    let cases: &[(&str, &str, &[&str])] = &[
        ("adds", ADDS, LINKED),
        ("fails", FAILS, LINKED),
        ("gone", GONE, LINKED),
        ("oldstrings", FAILS, strings),
        ("unlinked", ADDS, &[]),
        (
            "weak",
            "extern \"C\" __attribute__((weak)) int no_such(void); extern \"C\" int f(void) { return no_such ? 1 : 0; }",
            LINKED,
        ),
        ("throughanother", FAILS, &["-Wl,--no-as-needed", "-ltorch_cpu"]),
        (
            "wrapped",
            "extern \"C\" int THPVariable_Wrap(void); extern \"C\" int f(void) { return THPVariable_Wrap(); }",
            LINKED,
        ),
        (
            "nopython",
            "extern \"C\" int THPVariable_Wrap(void); extern \"C\" int f(void) { return THPVariable_Wrap(); }",
            &["-Wl,--no-as-needed", "-ltorch_cpu"],
        ),
    ];
    let mut verdicts = Vec::new();
    for (name, source, flags) in cases {
        let wheel = b.extension(name, source, flags, "Requires-Dist: torch==2.6.0");
        let said = loader(&b.path("site/torch/lib"), &b.path(&format!("{name}/{name}/_C.so")));
        let code = i32::from(said.is_some());
        let report = b.json(&[torch.to_str().unwrap(), &wheel], code);
        let package = &report["packages"][0];
        assert_eq!(package["loads"], said.is_none(), "{name}: the loader says {said:?}, and compat:\n{report:#}");
        verdicts.push(package["verdict"].as_str().unwrap().to_owned());
        // The torch where it is installed is judged as its wheel is.
        assert_eq!(b.json(&["site", &wheel], code)["packages"][0]["loads"], said.is_none(), "{name}");
    }
    let no = "does-not-fit";
    assert_eq!(verdicts, ["fits", "fits", no, no, no, "fits", "fits", "fits", no]);
}

#[test]
fn a_library_that_is_loaded_with_others_finds_what_they_bring() {
    let b = Bench::new();
    b.torch("2.6.0", false, &[]);
    // The helper was not linked against torch; the module that needs it was.
    b.library("pair", "pair/libhelper.so", ADDS, &[]);
    let helper = b.path("pair/pair/libhelper.so");
    let needs = [LINKED, &[helper.to_str().unwrap(), "-Wl,-rpath,$ORIGIN"]].concat();
    b.library("pair", "pair/_C.so", "extern \"C\" int f(void); extern \"C\" int g(void) { return f(); }", &needs);
    b.package("pair", "pair", "1.0", "py3-none-any", "");
    b.wheel("pair", "pair-1.0-py3-none-any.whl");
    assert_eq!(loader(&b.path("site/torch/lib"), &b.path("pair/pair/_C.so")), None);
    assert!(loader(&b.path("site/torch/lib"), &helper).is_some());
    b.json(&["site", "pair-1.0-py3-none-any.whl"], 0);
}

#[test]
fn what_another_library_of_the_package_has_may_have_been_loaded_first_and_cannot_be_told() {
    let b = Bench::new();
    b.torch("2.6.0", false, &[]);
    let calls = |name: &str| {
        format!(
            "namespace at {{ int add(int); }} extern \"C\" int {name}(void); extern \"C\" int f(void) {{ return at::add({name}()); }}"
        )
    };
    // Nothing but Python code loads the one before the other.
    let common = "extern \"C\" int engine_run(void) { return 0; }";
    b.library("engine", "engine/libengine.so", common, &[]);
    let wheel = b.extension("engine", &calls("engine_run"), LINKED, "");
    assert!(loader(&b.path("site/torch/lib"), &b.path("engine/engine/_C.so")).is_some());
    let package = &b.json(&["site", &wheel], 1)["packages"][0];
    assert_eq!((&package["verdict"], &package["loads"]), (&"cannot-be-told".into(), &Value::Null), "{package:#}");
    let needs = "an earlier load of libengine.so for all (RTLD_GLOBAL), which has engine_run";
    assert_eq!(package["gaps"], serde_json::json!([{ "by": "engine/_C.so", "needs": [needs] }]));
    // What none of them has is missing, and so is what is torch's.
    for (name, source) in [("nobody", calls("nobody_has")), ("gone", GONE.to_owned())] {
        b.library(name, &format!("{name}/libengine.so"), common, &[]);
        let package = &b.json(&["site", &b.extension(name, &source, LINKED, "")], 1)["packages"][0];
        assert_eq!(package["verdict"], "does-not-fit", "{name}: {package:#}");
    }
    // One that is loaded by what has it finds it.
    b.library("round", "round/libhelper.so", &calls("engine_run"), LINKED);
    let helper = b.path("round/round/libhelper.so");
    let needs = [LINKED, &[helper.to_str().unwrap()]].concat();
    let report = b.json(&["site", &b.extension("round", common, &needs, "")], 0);
    assert_eq!(report["packages"][0]["gaps"], serde_json::json!([]), "{report:#}");
}

#[test]
fn a_library_without_section_headers_is_told_and_not_taken_for_one_that_needs_nothing() {
    let b = Bench::new();
    b.torch("2.6.0", false, &[]);
    b.library("hidden", "hidden/_C.so", ADDS, LINKED);
    let path = b.path("hidden/hidden/_C.so");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[0x28..0x30].fill(0); // where the section headers are
    bytes[0x3c..0x40].fill(0); // how many there are, and which has their names
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(loader(&b.path("site/torch/lib"), &path), None);
    b.package("hidden", "hidden", "1.0", "cp311-cp311-linux_x86_64", "");
    let wheel = "hidden-1.0-cp311-cp311-linux_x86_64.whl";
    b.wheel("hidden", wheel);
    let says = "no section header leads to its symbols";
    b.run(&["compat", "site", wheel]).exits(2).says(says);
    let package = &b.json(&["site", "hidden"], 1)["packages"][0];
    assert_eq!(package["verdict"], "cannot-be-told", "{package:#}");
    assert!(package["gaps"][0]["needs"][0].as_str().unwrap().contains(says), "{package:#}");
}

#[test]
fn a_debian_packages_torch_is_known_by_names_with_a_version_behind_them() {
    let b = Bench::new();
    let lib = |file: &str| format!("usr/lib/x86_64-linux-gnu/{file}");
    let at = |file: &str| b.path("debian").join(lib(file)).to_str().unwrap().to_owned();
    b.library("debian", &lib("libc10.so.2.6"), C10, &[]);
    let c10 = at("libc10.so.2.6");
    b.library("debian", &lib("libtorch_cpu.so.2.6"), TORCH_CPU, &["-Wl,--no-as-needed", c10.as_str()]);
    let cpu = at("libtorch_cpu.so.2.6");
    let data = zstd::encode_all(&packed(&b.path("debian/usr"), "./usr")[..], 3).unwrap();
    let mut deb = ar::Builder::new(Vec::new());
    deb.append(&ar::Header::new(b"debian-binary".to_vec(), 4), &b"2.0\n"[..]).unwrap();
    deb.append(&ar::Header::new(b"data.tar.zst".to_vec(), data.len() as u64), &data[..]).unwrap();
    b.write("libtorch2.6.deb", deb.into_inner().unwrap());
    let needs = ["-Wl,--no-as-needed", cpu.as_str(), c10.as_str()];
    for (name, source, fits) in [("good", ADDS, true), ("gone", GONE, false)] {
        let wheel = b.extension(name, source, &needs, "");
        let report = b.json(&["libtorch2.6.deb", &wheel], i32::from(!fits));
        assert_eq!((&report["torch"]["system"], &report["torch"]["python"]), (&"Linux".into(), &Value::Null));
        assert_eq!(report["packages"][0]["loads"], fits, "{name}: {report:#}");
    }
}

#[test]
fn an_archive_of_libtorch_tells_its_cuda_by_its_label_or_its_libraries_and_has_no_python() {
    let b = Bench::new();
    b.torch("2.6.0+cu124", true, &[]);
    let library = |name: &str| std::fs::read(b.path(&format!("site/torch/lib/{name}"))).unwrap();
    for name in ["libc10.so", "libtorch_cpu.so"] {
        b.write(&format!("without/lib/{name}"), library(name));
        b.write(&format!("with/lib/{name}"), library(name));
    }
    b.write("with/lib/libc10_cuda.so", library("libc10_cuda.so"));
    let source = "extern \"C\" int cudaMalloc(void); extern \"C\" int f(void) { return cudaMalloc(); }";
    let gpu = |name: &str, soname: &str| {
        b.library("cuda", soname, "extern \"C\" int cudaMalloc(void) { return 0; }", &[]);
        let cudart = b.path(&format!("cuda/{soname}"));
        let needs = ["-Wl,--no-as-needed", "-ltorch_cpu", "-lc10", "-lc10_cuda", cudart.to_str().unwrap()];
        b.extension(name, source, &needs, "")
    };
    let (twelve, eleven) = (gpu("twelve", "libcudart.so.12"), gpu("eleven", "libcudart.so.11.0"));
    for (folder, version, cuda) in
        [("with", "2.6.0+cu124", Some("12.4")), ("with", "2.6.0", Some("12")), ("without", "2.6.0+cpu", None)]
    {
        b.write(&format!("{folder}/build-version"), format!("{version}\n"));
        b.write("libtorch.tar", packed(&b.path(folder), "libtorch"));
        for torch in ["libtorch.tar", folder] {
            let report = b.json(&[torch, &twelve], i32::from(cuda.is_none()));
            let of = &report["torch"];
            let wanted = (Some(version), cuda, None);
            assert_eq!((of["version"].as_str(), of["cuda"].as_str(), of["python"].as_str()), wanted, "{torch}");
            let cause = if cuda.is_none() { "no-cuda" } else { "other-cuda" };
            assert_eq!(b.json(&[torch, &eleven], 1)["packages"][0]["cause"], cause, "{torch}, {version}");
        }
    }
    // An index has a wheel for each Python, and here is none to choose by.
    b.write("r.txt", "good==1.0\n");
    for what in [&["pypi:good==1.0"][..], &["-r", "r.txt"]] {
        let package = &b.json(&[&["libtorch.tar"], what].concat(), 1)["packages"][0];
        let said = (&package["package"], &package["version"], &package["verdict"]);
        assert_eq!(said, (&"good".into(), &"1.0".into(), &"cannot-be-told".into()));
        let needs = package["gaps"][0]["needs"][0].as_str().unwrap();
        assert!(needs.contains("this torch has no Python, so name the wheel"), "{needs}");
    }
}

#[test]
fn libraries_of_a_conda_environment_are_looked_for_in_its_own_folder() {
    let b = Bench::new();
    b.torch("2.6.0", false, &[]);
    b.library("env", "lib/libnowhere.so.57", "extern \"C\" int nowhere_version(void) { return 0; }", &[]);
    let nowhere = b.path("env/lib/libnowhere.so.57");
    let source = "namespace at { int add(int); } extern \"C\" int nowhere_version(void); extern \"C\" int f(void) { return at::add(nowhere_version()); }";
    let wheel = b.extension("codec", source, &[LINKED, &[nowhere.to_str().unwrap()]].concat(), "");
    std::fs::create_dir_all(b.path("env/lib/python3.11")).unwrap();
    let site = "env/lib/python3.11/site-packages";
    std::fs::rename(b.path("site"), b.path(site)).unwrap();
    let package = &b.json(&["env", &wheel], 1)["packages"][0];
    assert_eq!(package["gaps"][0]["needs"][0], "libnowhere.so.57", "{package:#}");
    std::fs::create_dir_all(b.path("env/conda-meta")).unwrap();
    for torch in ["env", site] {
        b.json(&[torch, &wheel], 0);
    }
}

#[test]
fn what_a_person_reads_names_the_symbol_as_it_is_written_and_the_likely_cause() {
    let b = Bench::new();
    b.torch("2.6.0+cpu.libuv", false, &[]);
    let gone = b.extension("gone", GONE, LINKED, "Requires-Dist: torch (==2.5.1)");
    let old = b.extension("oldstrings", FAILS, &[LINKED, &["-D_GLIBCXX_USE_CXX11_ABI=0"]].concat(), "");
    let good = b.extension("good", ADDS, LINKED, "Requires-Dist: torch==2.6.0");
    let ran =
        b.run(&["compat", "site", &gone, &old, &good]).exits(1).says("of 3 packages 2 do not fit, 0 cannot be told");
    insta::assert_snapshot!(ran.stdout);
}

#[test]
fn the_other_strings_are_the_cause_in_both_directions() {
    for (torch, package, cause) in [("1", "0", "old-strings"), ("0", "1", "new-strings")] {
        let b = Bench::new();
        b.torch("2.6.0", false, &[&format!("-D_GLIBCXX_USE_CXX11_ABI={torch}")]);
        let flag = format!("-D_GLIBCXX_USE_CXX11_ABI={package}");
        let wheel = b.extension("x", FAILS, &[LINKED, &[&flag]].concat(), "");
        let report = b.json(&["site", &wheel], 1);
        assert_eq!(report["torch"]["cxx11_abi"], torch == "1");
        assert_eq!(report["packages"][0]["cause"], cause);
    }
}

#[test]
fn a_package_for_cuda_fits_a_torch_that_has_it_and_no_other() {
    let b = Bench::new();
    b.torch("2.6.0+cu124", true, &[]);
    let source = "namespace c10 { namespace cuda { int current_device(); } } extern \"C\" int cudaMalloc(void);\n extern \"C\" int f(void) { return c10::cuda::current_device() + cudaMalloc(); }";
    let cudart = b.path("cuda/libcudart.so.12");
    let flags = [LINKED, &["-lc10_cuda", cudart.to_str().unwrap()]].concat();
    let wheel = b.extension("gpu", source, &flags, "");
    let report = b.json(&["site", &wheel], 0);
    assert_eq!(report["torch"]["cuda"], "12.4");
    // Linked against another major version of CUDA.
    b.library("cuda", "libcudart.so.11.0", "extern \"C\" int cudaMalloc(void) { return 0; }", &[]);
    let other = b.path("cuda/libcudart.so.11.0");
    let eleven = b.extension("eleven", source, &[LINKED, &["-lc10_cuda", other.to_str().unwrap()]].concat(), "");
    let package = &b.json(&["site", &eleven], 1)["packages"][0];
    assert_eq!(package["cause"], "other-cuda");
    assert_eq!(package["reasons"][0]["needs"], "libcudart.so.11.0");
    assert_eq!(package["reasons"][0]["instead"], "libcudart.so.12");
    // A piece of torch's own that only other versions have is no other CUDA.
    b.library("old", "libtorch_cuda_cu.so", "extern \"C\" int piece(void) { return 0; }", &[]);
    let piece = b.path("old/libtorch_cuda_cu.so");
    let needed = ["-lc10_cuda", cudart.to_str().unwrap(), piece.to_str().unwrap()];
    let pieces = b.extension("pieces", source, &[LINKED, &needed].concat(), "");
    let package = &b.json(&["site", &pieces], 1)["packages"][0];
    assert_eq!(package["cause"], "other-version", "{package:#}");
    // A torch without CUDA.
    let cpu = Bench::new();
    cpu.torch("2.6.0+cpu", false, &[]);
    let package = &cpu.json(&["site", b.path(&wheel).to_str().unwrap()], 1)["packages"][0];
    assert_eq!(package["cause"], "no-cuda");
    let needs: Vec<&str> = package["reasons"].as_array().unwrap().iter().filter_map(|r| r["needs"].as_str()).collect();
    assert_eq!(needs, ["libc10_cuda.so", "libcudart.so.12"]);
}

#[test]
fn pins_are_read_as_pip_reads_them() {
    let b = Bench::new();
    b.torch("2.6.0+cpu.libuv", false, &[]);
    for (i, (pin, fits)) in [
        ("Requires-Dist: torch==2.6.0", true),
        ("Requires-Dist: torch (>=2.0,<2.7)", true),
        ("Requires-Dist: torch==2.5.1", false),
        ("Requires-Dist: torch==2.6.0+cu124", false),
        ("Requires-Dist: torch==2.5.1 ; sys_platform == 'win32'", true),
        ("Requires-Dist: torch==2.5.1 ; extra == 'old'", true),
        ("Requires-Python: >=3.12", false),
        ("Requires-Python: >=3.11.4", true),
    ]
    .into_iter()
    .enumerate()
    {
        let wheel = b.extension(&format!("x{i}"), ADDS, LINKED, pin);
        let package = &b.json(&["site", &wheel], i32::from(!fits))["packages"][0];
        assert_eq!(package["pins_hold"], fits, "{pin}");
        assert_eq!(package["loads"], true, "{pin}");
    }
}

#[test]
fn requirements_of_extras_count_where_the_extra_is_asked_for() {
    let b = Bench::new();
    b.torch("2.6.0", false, &[]);
    let good = b.extension("good", ADDS, LINKED, "Requires-Dist: torch==2.5.1 ; extra == 'old'");
    let bytes = std::fs::read(b.path(&good)).unwrap();
    let (_server, url) = index(&[("/good/", "/f/good-1.0-cp311-cp311-linux_x86_64.whl", bytes.clone())]);
    b.write(&format!("beside/{good}"), bytes);
    for folder in ["far", "beside"] {
        b.write(&format!("{folder}/without.txt"), "good==1.0\n");
        b.write(&format!("{folder}/with.txt"), "good==1.0\ngood[Old]\n");
    }
    for (what, fits) in [
        (vec!["pypi:good==1.0"], true),
        (vec!["pypi:good[old]==1.0"], false),
        (vec!["pypi:good[new]"], true),
        (vec!["-r", "far/without.txt"], true),
        (vec!["-r", "far/with.txt"], false),
        (vec!["-r", "beside/without.txt"], true),
        (vec!["-r", "beside/with.txt"], false),
    ] {
        let mut command = b.command(&[&["compat", "--json", "site"], &what[..]].concat());
        let ran = Ran::of(command.env("PIP_INDEX_URL", &url), b.dir.path()).exits(i32::from(!fits));
        let report: Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(by_package(&report["packages"], "verdict").len(), 1, "{what:?}: {report:#}");
        assert_eq!(report["packages"][0]["pins_hold"], fits, "{what:?}");
    }
}

#[test]
fn what_a_package_needs_in_one_very_version_and_was_not_named_is_told() {
    let b = Bench::new();
    b.torch("2.6.0", false, &[]);
    b.write("recs/recs/__init__.py", "");
    let asks = "Requires-Dist: torch==2.6.0\nRequires-Dist: kernel==1.0\nRequires-Dist: numbers>=1\n\
                Requires-Dist: windows==1.0 ; sys_platform == 'win32'\nRequires-Dist: more==1.0 ; extra == 'all'";
    b.package("recs", "recs", "1.0", "py3-none-any", asks);
    let recs = "recs-1.0-py3-none-any.whl";
    b.wheel("recs", recs);
    let note = "it also needs kernel==1.0, which was not judged";
    let remarks = |report: &Value| report["packages"][0]["remarks"].clone();
    assert_eq!(remarks(&b.json(&["site", recs], 0)), serde_json::json!(["it has no compiled part", note]));
    b.run(&["compat", "site", recs]).exits(0).says(note);
    // Named too, it is judged by itself; another version of it is not the one.
    let kernel = b.extension("kernel", GONE, LINKED, "");
    assert_eq!(remarks(&b.json(&["site", recs, &kernel], 1)), serde_json::json!(["it has no compiled part"]));
    b.package("later", "kernel", "2.0", "py3-none-any", "");
    b.wheel("later", "kernel-2.0-py3-none-any.whl");
    let report = b.json(&["site", recs, "kernel-2.0-py3-none-any.whl"], 0);
    assert_eq!(remarks(&report), serde_json::json!(["it has no compiled part", note]));
    // Installed beside it, it is known, whether it has to do with torch or not.
    b.package("env", "recs", "1.0", "py3-none-any", asks);
    b.package("env", "kernel", "1.0", "py3-none-any", "");
    let report = b.json(&["site", "env"], 0);
    assert_eq!((&report["unrelated"], remarks(&report)), (&1.into(), serde_json::json!(["it has no compiled part"])));
}

#[test]
fn a_wheel_for_another_python_or_machine_does_not_fit() {
    let b = Bench::new();
    b.torch("2.6.0", false, &[]);
    let right = b.extension("x", ADDS, LINKED, "");
    for (tag, fits) in [
        ("cp310-cp310-linux_x86_64", false),
        ("cp311-cp311-win_amd64", false),
        ("cp311-cp311-manylinux_2_28_aarch64", false),
        ("cp39-abi3-manylinux_2_28_x86_64", true),
        ("py3-none-any", true),
    ] {
        let name = format!("x-1.0-{tag}.whl");
        if name != right {
            std::fs::copy(b.path(&right), b.path(&name)).unwrap();
        }
        let package = &b.json(&["site", &name], i32::from(!fits))["packages"][0];
        assert_eq!(package["reasons"].as_array().unwrap().is_empty(), fits, "{tag}");
    }
}

#[test]
fn a_user_of_the_stable_abi_is_recognized_and_a_function_that_came_later_is_told() {
    let b = Bench::new();
    b.torch("2.6.0", false, &[]);
    let calls = |name: &str| format!("extern \"C\" int {name}(void); extern \"C\" int f(void) {{ return {name}(); }}");
    let stable = b.extension("stable", &calls("aoti_torch_empty"), &["-Wl,--no-as-needed", "-ltorch_cpu"], "");
    let package = &b.json(&["site", &stable], 0)["packages"][0];
    assert_eq!(package["libraries"][0]["stable_abi"], true);
    let later = b.extension("later", &calls("torch_call_dispatcher"), &["-Wl,--no-as-needed", "-ltorch_cpu"], "");
    let package = &b.json(&["site", &later], 1)["packages"][0];
    assert_eq!(package["cause"], "newer-stable-abi");
    assert_eq!(
        b.json(&["site", &b.extension("x", ADDS, LINKED, "")], 0)["packages"][0]["libraries"][0]["stable_abi"],
        false
    );
}

#[test]
fn what_needs_a_library_of_the_system_cannot_be_told_unless_a_variant_of_it_loads() {
    let b = Bench::new();
    b.torch("2.6.0", false, &[]);
    let foreign = |n: &str| {
        b.library(
            "foreign",
            &format!("libnowhere.so.{n}"),
            "extern \"C\" int nowhere_version(void) { return 0; }",
            &[],
        );
        b.path(&format!("foreign/libnowhere.so.{n}")).to_str().unwrap().to_owned()
    };
    let source = "namespace at { int add(int); } extern \"C\" int nowhere_version(void); extern \"C\" int f(void) { return at::add(nowhere_version()); }";
    for n in ["56", "57"] {
        b.library("codec", &format!("codec/libcore{n}.so"), source, &[LINKED, &[&foreign(n)]].concat());
    }
    b.package("codec", "codec", "1.0", "py3-none-any", "");
    b.wheel("codec", "codec-1.0-py3-none-any.whl");
    let report = b.json(&["site", "codec-1.0-py3-none-any.whl"], 1);
    assert_eq!(report["packages"][0]["verdict"], "cannot-be-told");
    assert_eq!(report["packages"][0]["gaps"][1]["needs"][0], "libnowhere.so.57");
    // One that needs nothing of the system.
    b.library("codec", "codec/libcore58.so", ADDS, LINKED);
    b.wheel("codec", "codec-1.0-py3-none-any.whl");
    let report = b.json(&["site", "codec-1.0-py3-none-any.whl"], 0);
    let remark = &report["packages"][0]["remarks"][0];
    assert_eq!(remark, "it brings 3 variants of one library, of which libcore58.so loads", "{report:#}");
    // A symbol of torch that is missing counts in each variant.
    b.library("codec", "codec/libcore57.so", GONE, LINKED);
    b.wheel("codec", "codec-1.0-py3-none-any.whl");
    b.json(&["site", "codec-1.0-py3-none-any.whl"], 1);
}

#[test]
fn a_version_of_symbols_that_the_library_does_not_define_is_a_reason() {
    let b = Bench::new();
    let script = |v: &str| b.write(&format!("{v}.map"), format!("{v} {{ global: *; }};")).to_str().unwrap().to_owned();
    let versioned = |v: &str| format!("-Wl,--version-script={}", script(v));
    b.torch("2.6.0", false, &[]);
    let cpu = |v: &str| {
        b.library("site", "torch/lib/libtorch_cpu.so", TORCH_CPU, &[&versioned(v), "-Wl,--no-as-needed", "-lc10"])
    };
    cpu("TORCH_2");
    let wheel = b.extension("x", ADDS, LINKED, "");
    b.json(&["site", &wheel], 0);
    cpu("TORCH_1");
    assert!(loader(&b.path("site/torch/lib"), &b.path("x/x/_C.so")).is_some());
    let reasons = b.json(&["site", &wheel], 1)["packages"][0]["reasons"].clone();
    assert_eq!((reasons[0]["kind"].as_str(), reasons[0]["version"].as_str()), (Some("version"), Some("TORCH_2")));
}

#[test]
fn a_wheel_without_a_compiled_part_is_judged_by_its_pins() {
    let b = Bench::new();
    b.torch("2.6.0", false, &[]);
    b.write("pure/pure/__init__.py", "");
    b.package("pure", "pure", "1.0", "py3-none-any", "Requires-Dist: torch>=2");
    b.wheel("pure", "pure-1.0-py3-none-any.whl");
    let report = b.json(&["site", "pure-1.0-py3-none-any.whl"], 0);
    assert_eq!(report["packages"][0]["remarks"][0], "it has no compiled part");
}

#[test]
fn an_environment_is_judged_package_by_package_and_what_is_unrelated_is_counted() {
    let b = Bench::new();
    b.torch("2.6.0", false, &[]);
    b.library("site", "good/_C.so", ADDS, LINKED);
    b.package("site", "good", "1.0", "cp311-cp311-linux_x86_64", "Requires-Dist: torch==2.6.0");
    b.library("site", "bad/_C.so", GONE, LINKED);
    b.package("site", "bad", "2.0", "cp311-cp311-linux_x86_64", "");
    b.package("site", "numbers", "1.0", "py3-none-any", "");
    for (name, version) in [("good", "1.0"), ("bad", "2.0")] {
        let record = format!("{name}/_C.so,,\n{name}-{version}.dist-info/METADATA,,\n../../../bin/{name},,\n");
        b.write(&format!("site/{name}-{version}.dist-info/RECORD"), record);
    }
    let report = b.json(&["site", "site"], 1);
    let verdicts = by_package(&report["packages"], "verdict");
    assert_eq!(verdicts, [("bad", "does-not-fit"), ("good", "fits")]);
    assert_eq!(report["unrelated"], 1);
}

#[test]
fn packages_are_seen_however_they_were_installed() {
    let b = Bench::new();
    b.torch("2.6.0", false, &[]);
    let about = |name: &str| format!("Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n");
    // By a distribution's packager: no RECORD.
    b.library("site", "packaged/_C.so", GONE, LINKED);
    b.write("site/packaged-1.0.egg-info/PKG-INFO", about("packaged"));
    b.write("site/old-1.0.egg-info", about("old") + "Requires-Dist: torch==1.0\n");
    // By `setup.py install`, with a module beside its package.
    b.library("site/egg-1.0-py3.11.egg", "egg/_C.so", GONE, LINKED);
    b.write("site/egg-1.0-py3.11.egg/EGG-INFO/PKG-INFO", about("egg"));
    b.library("site", "_topped.cpython-311-x86_64-linux-gnu.so", ADDS, LINKED);
    b.write("site/topped-1.0.dist-info/top_level.txt", "_topped\n");
    b.write("site/topped-1.0.dist-info/METADATA", about("topped"));
    // By `setup.py develop`, and by `pip install -e`: its files are where it is edited.
    b.library("linked", "linked/_C.so", GONE, LINKED);
    b.write("linked/linked.egg-info/PKG-INFO", about("linked"));
    b.write("site/linked.egg-link", format!("{}\n.", b.path("linked").display()));
    b.library("edited", "edited/_C.so", ADDS, LINKED);
    b.library("edited", "build/lib.linux/edited/_C.so", GONE, LINKED);
    for (name, folder) in [("edited", "edited"), ("moved", "no-more")] {
        let url = format!("{{\"dir_info\": {{\"editable\": true}}, \"url\": \"file://{}\"}}", b.path(folder).display());
        b.write(&format!("site/{name}-1.0.dist-info/METADATA"), about(name));
        b.write(&format!("site/{name}-1.0.dist-info/RECORD"), format!("__editable__.{name}-1.0.pth,,\n"));
        b.write(&format!("site/{name}-1.0.dist-info/direct_url.json"), url);
    }
    let report = b.json(&["site", "site"], 1);
    let no = "does-not-fit";
    let wanted = [
        ("edited", "fits"),
        ("egg", no),
        ("linked", no),
        ("moved", "cannot-be-told"),
        ("old", no),
        ("packaged", no),
        ("topped", "fits"),
    ];
    let mut seen = by_package(&report["packages"], "verdict");
    seen.sort_unstable();
    assert_eq!(seen, wanted, "{report:#}");
    let moved = report["packages"].as_array().unwrap().iter().find(|p| p["package"] == "moved").unwrap();
    assert!(moved["gaps"][0]["needs"][0].as_str().unwrap().contains("no-more, which is not there"), "{moved}");
}

#[test]
fn a_library_of_cuda_that_torchs_wheel_renamed_is_found_by_its_soname() {
    let b = Bench::new();
    b.torch("1.12.1+cu102", true, &[]);
    // As the wheels before 2.0 have it: the file has a digest in its name, its soname does not.
    std::fs::rename(b.path("cuda/libcudart.so.12"), b.path("site/torch/lib/libcudart-80664282.so.12")).unwrap();
    b.library("cuda", "libcudart.so.12", "extern \"C\" int cudaMalloc(void) { return 0; }", &[]);
    let cudart = b.path("cuda/libcudart.so.12");
    let source = "extern \"C\" int cudaMalloc(void); extern \"C\" int f(void) { return cudaMalloc(); }";
    let wheel = b.extension("gpu", source, &[LINKED, &[cudart.to_str().unwrap()]].concat(), "");
    b.json(&["site", &wheel], 0);
    assert_eq!(loader(&b.path("site/torch/lib"), &b.path("gpu/gpu/_C.so")), None);
}

#[test]
fn an_extension_without_torchs_names_loads_where_torch_is_loaded_for_all() {
    let b = Bench::new();
    b.torch("1.4.0", false, &[]);
    let wheel = b.extension("x", ADDS, &[], "");
    b.json(&["site", &wheel], 0);
    let gone = b.extension("gone", GONE, &[], "");
    b.json(&["site", &gone], 1);
}

#[test]
fn of_libraries_for_several_torchs_the_one_for_this_counts() {
    for (version, code) in [("2.6.0+cpu.libuv", 0), ("2.5.1", 1)] {
        let b = Bench::new();
        b.torch(version, false, &[]);
        b.library("many", "many/libmany_pytorch_2.6.0.so", ADDS, LINKED);
        b.library("many", "many/libmany_pytorch_2.4.0.so", GONE, LINKED);
        b.package("many", "many", "1.0", "py3-none-any", "");
        b.wheel("many", "many-1.0-py3-none-any.whl");
        let report = b.json(&["site", "many-1.0-py3-none-any.whl"], code);
        if code == 1 {
            let reason = &report["packages"][0]["reasons"][0];
            assert_eq!(
                (reason["kind"].as_str(), &reason["versions"]),
                (Some("other-torchs"), &serde_json::json!(["2.4.0", "2.6.0"]))
            );
        }
    }
}

#[test]
fn lines_of_a_requirement_file_count_as_pip_counts_them() {
    let b = Bench::new();
    b.torch("2.6.0", false, &[]);
    let good = b.extension("good", ADDS, LINKED, "");
    let (_server, url) =
        index(&[("/good/", "/f/good-1.0-cp311-cp311-linux_x86_64.whl", std::fs::read(b.path(&good)).unwrap())]);
    let compat = |file: &str, text: &str| {
        b.write(file, text);
        let mut command = b.command(&["compat", "--json", "site", "-r", file]);
        Ran::of(command.env("PIP_INDEX_URL", &url).env("GOOD_VERSION", "1.0"), b.dir.path())
    };
    // Two lines on one package are one requirement; paths are from the folder that one works in; variables are put in.
    let ran = compat("more/lines.txt", "torch>=2\ntorch<2.6\n").exits(1);
    assert_eq!(serde_json::from_str::<Value>(&ran.stdout).unwrap()["packages"].as_array().unwrap().len(), 1);
    compat("more/path.txt", &format!("./{good}\n")).exits(0);
    compat("more/far.txt", "./more/nowhere.whl\n")
        .exits(2)
        .says("line 1 of more/far.txt: there is no wheel ./more/nowhere.whl");
    compat("more/variable.txt", "good==${GOOD_VERSION}\n").exits(0);
    compat("more/unset.txt", "good==${NO_SUCH_VARIABLE}\n").exits(2).says("${NO_SUCH_VARIABLE}");
    // What is not followed, and what has no wheel, is named without the password.
    let ran = compat("more/secret.txt", "-i https://bob:S3CRET@h/simple\ngit+https://bob:S3CRET@h/x\n").exits(1);
    assert!(!ran.stdout.contains("S3CRET") && !ran.stderr.contains("S3CRET"), "{ran:?}");
    ran.says("-i https://…@h/simple, which is not followed").says("git+https://…@h/x");
    // What a file of others includes has an end, and is waited for no longer than it takes.
    if cfg!(unix) {
        compat("more/endless.txt", "-r /dev/zero\n").exits(2).says("/dev/zero cannot be read: it is no regular file");
        b.run(&["compat", "site", "-r", "/dev/zero"]).exits(2).says("/dev/zero is no requirement file");
        b.run(&["compat", "site", "/dev/zero"]).exits(2).says("/dev/zero cannot be read: it is no regular file");
    }
}

#[test]
fn bad_input_is_named_with_a_next_step() {
    let b = Bench::new();
    b.torch("2.6.0", false, &[]);
    let torch = b.wheel("site", "torch-2.6.0-cp311-cp311-linux_x86_64.whl");
    let torch = torch.to_str().unwrap();
    b.write("none.whl", "this is no wheel");
    b.write("empty.whl", "");
    b.write("a.txt", "-r b.txt\n");
    b.write("b.txt", "-r a.txt\n");
    b.write("missing.txt", "-r nowhere.txt\n");
    b.write("broken.txt", "good\n???\n");
    b.write("sdist/x-1.0/PKG-INFO", "Name: x\n");
    std::fs::create_dir_all(b.path("nothing")).unwrap();
    b.write("old/torch/version.py", "__version__ = '0.4.1'\n");
    b.write("old/torch/lib/libATen.so", "");
    let sdist = support::tar("x-1.0", &BTreeMap::from([("PKG-INFO".to_owned(), "Name: x\n".to_owned())]));
    b.write("x-1.0.tar", sdist);
    for (args, says) in [
        (vec![torch, "nowhere.whl"], "there is no nowhere.whl"),
        (vec![torch, "torchvision"], "if a package of the index is meant: pypi:torchvision"),
        (vec![torch, "none.whl"], "none.whl is no wheel and no other archive"),
        (vec![torch, "empty.whl"], "empty.whl is no wheel and no other archive"),
        (vec![torch, "x-1.0.tar"], "is no wheel: it has no *.dist-info/METADATA"),
        (vec![torch, "nothing"], "holds no installed package and no wheel"),
        (vec![torch, "pypi:a b"], "'a b' is no requirement"),
        (vec![torch, "-r", "a.txt"], "includes itself"),
        (vec![torch, "-r", "missing.txt"], "there is no requirement file nowhere.txt"),
        (vec![torch, "-r", "broken.txt"], "'???' is no requirement"),
        (vec!["nothing", "none.whl"], "nothing is not a torch"),
        (vec!["old", "none.whl"], "torch 0.4.1 is older than what is read (1.0 and later)"),
        (vec!["none.whl", "none.whl"], "none.whl is no wheel and no other archive"),
        (vec!["site/torch/lib/libc10.so", "none.whl"], "is a single library"),
        (vec!["pypi:torch==2.6.0", "none.whl", "--platform", "amiga"], "'amiga' is no platform"),
        (vec!["pypi:torch==2.6.0", "none.whl", "--python-version", "two"], "'two' is no version of Python 3"),
        (vec![torch, "none.whl", "--python-version", "3.12"], "is for CPython 3.11 on"),
    ] {
        let ran = b.run(&[&["compat"], &args[..]].concat()).exits(2).says(says);
        assert!(
            ran.stderr.contains("next:")
                || says.contains("is no requirement")
                || says.contains("there is no requirement file"),
            "{}",
            ran.stderr
        );
    }
}

#[test]
fn two_torches_in_one_folder_are_named() {
    let b = Bench::new();
    b.torch("2.6.0", false, &[]);
    b.package("site", "torch", "2.5.1", "cp311-cp311-linux_x86_64", "");
    let ran = b.run(&["compat", "site", "site"]).exits(2);
    assert!(ran.stderr.contains("torch-2.5.1.dist-info and torch-2.6.0.dist-info"), "{}", ran.stderr);
    // An environment with two Pythons, each with a torch.
    let e = Bench::new();
    e.torch("2.6.0", false, &[]);
    for python in ["python3.11", "python3.12"] {
        std::fs::create_dir_all(e.path(&format!("env/lib/{python}"))).unwrap();
        let status = Command::new("cp")
            .arg("-r")
            .arg(e.path("site"))
            .arg(e.path(&format!("env/lib/{python}/site-packages")))
            .status();
        assert!(status.unwrap().success());
    }
    e.run(&["compat", "env", "site"]).exits(2).says("env holds two torches");
    // And an archive.
    e.wheel("env/lib", "both.zip");
    e.run(&["compat", "both.zip", "site"]).exits(2).says("both.zip holds two torches");
}

#[test]
fn of_a_folder_of_wheels_the_one_torch_is_meant_and_two_are_named() {
    let b = Bench::new();
    b.torch("2.6.0", false, &[]);
    let good = b.extension("good", ADDS, LINKED, "");
    b.write(&format!("dist/{good}"), std::fs::read(b.path(&good)).unwrap());
    let (torch, other) = ("torch-2.6.0-cp311-cp311-linux_x86_64.whl", "torch-2.5.1-cp311-cp311-linux_x86_64.whl");
    let torch = b.wheel("site", &format!("dist/{torch}")).file_name().unwrap().to_str().unwrap().to_owned();
    let named = |report: &Value| {
        assert_eq!(by_package(&report["packages"], "verdict"), [("good", "fits")], "{report:#}");
        let remarks = report["remarks"].as_array().unwrap();
        remarks.iter().map(|r| r.as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let left_out = |wheel: &str| format!("{wheel} in dist is a torch, and was left out");
    assert_eq!(named(&b.json(&["dist", "dist"], 0)), [left_out(&torch)]);
    b.write(&format!("dist/{other}"), b"-");
    assert_eq!(named(&b.json(&["site", "dist"], 0)), [left_out(other), left_out(&torch)]);
    // The one at hand is not told of.
    assert_eq!(named(&b.json(&[&format!("dist/{torch}"), "dist"], 0)), [left_out(other)]);
    b.run(&["compat", "dist", "dist"]).exits(2).says("dist holds two torches").says(&torch).says(other);
}

#[test]
fn a_pin_that_nobody_can_judge_is_told_and_taken_for_neither_good_nor_bad() {
    let b = Bench::new();
    b.torch("2.6.0", false, &[]);
    let unknown = "cannot-be-told";
    // Requirements that no rule knows.
    for (i, (line, verdict, said)) in [
        ("torch>=1.2.*", unknown, "a requirement of it cannot be read: torch>=1.2.*"),
        ("numpy>=1.2.*", "fits", "a requirement of it cannot be read: numpy>=1.2.*"),
        ("torch>=1.2.* ; extra == 'old'", "fits", "a requirement of it cannot be read: torch>=1.2.*"),
    ]
    .into_iter()
    .enumerate()
    {
        let wheel = b.extension(&format!("x{i}"), ADDS, LINKED, &format!("Requires-Dist: {line}"));
        let package = &b.json(&["site", &wheel], i32::from(verdict == unknown))["packages"][0];
        assert_eq!(package["verdict"], verdict, "{line}");
        assert!(package["remarks"][0].as_str().unwrap().starts_with(said), "{package:#}");
        assert_eq!(package["loads"], true, "{line}");
    }
    // A torch of which nobody knows the version.
    let torch = "torch-2.6.0-cp311-cp311-linux_x86_64.whl";
    b.wheel("site", torch);
    std::fs::remove_file(b.path("site/torch/version.py")).unwrap();
    let pin = "Requires-Dist: torch==2.6.0";
    let pinned = b.extension("pinned", ADDS, LINKED, pin);
    let free = b.extension("free", ADDS, LINKED, "Requires-Dist: torch");
    let gone = b.extension("gone", GONE, LINKED, pin);
    b.json(&["site", &free], 0);
    let needs = "a torch of known version to hold torch==2.6.0 against";
    let package = &b.json(&["site", &pinned], 1)["packages"][0];
    assert_eq!((&package["verdict"], &package["loads"]), (&unknown.into(), &true.into()), "{package:#}");
    assert_eq!(package["gaps"], serde_json::json!([{ "by": "pinned", "needs": [needs] }]));
    let package = &b.json(&["site", &gone], 1)["packages"][0];
    assert_eq!((&package["verdict"], &package["gaps"]), (&"does-not-fit".into(), &serde_json::json!([])));
    assert_eq!(package["remarks"][0], format!("whether its pins hold cannot be told without {needs}"));
    // And the torch itself, as a line and as a wheel.
    b.write("pinned.txt", "torch==2.6.0\n");
    let package = &b.json(&["site", "-r", "pinned.txt"], 1)["packages"][0];
    assert_eq!((&package["verdict"], &package["gaps"][0]["needs"][0]), (&unknown.into(), &needs.into()));
    b.write("free.txt", "torch\n");
    b.json(&["site", "-r", "free.txt"], 0);
    assert_eq!(b.json(&["site", torch], 1)["packages"][0]["verdict"], unknown);
}

/// The header of an ELF library for i386, and no section.
fn elf_for_i386() -> Vec<u8> {
    let mut out = b"\x7fELF\x01\x01\x01".to_vec();
    out.resize(16, 0);
    out.extend([3, 0, 3, 0, 1, 0, 0, 0]); // a shared object, the machine, the version
    out.resize(40, 0);
    out.extend([52, 0, 32, 0, 0, 0, 40, 0, 0, 0, 0, 0]); // sizes of the header and of what it counts: nothing
    out
}

/// The headers of a DLL for i386, and no section.
fn dll_for_i386() -> Vec<u8> {
    let mut out = vec![0; 64 + 24 + 224];
    out[..2].copy_from_slice(b"MZ");
    out[0x3c] = 64; // where the headers are
    out[64..70].copy_from_slice(b"PE\0\0\x4c\x01"); // with the machine
    out[84..90].copy_from_slice(&[224, 0, 0x02, 0x21, 0x0b, 0x01]); // size of the optional header, a DLL, PE32
    out
}

/// The header of a Mach-O library for i386.
fn dylib_for_i386() -> Vec<u8> {
    [&0xfeed_face_u32.to_le_bytes()[..], &[0; 60]].concat()
}

const I386: u32 = 7;
const ARM64: u32 = 0x0100_000c;

#[test]
fn what_is_for_32_bit_machines_is_foreign_and_ends_no_run() {
    let b = Bench::new();
    b.torch("2.6.0", false, &[]);
    for (name, file, bytes) in [
        ("elf", "old.so", elf_for_i386()),
        ("pe", "old.dll", dll_for_i386()),
        ("thin", "old.dylib", dylib_for_i386()),
        ("fat", "old.dylib", fat(&[(I386, dylib_for_i386())])),
    ] {
        b.write(&format!("{name}/{name}/{file}"), bytes);
        b.package(name, name, "1.0", "py3-none-any", "");
        let wheel = format!("{name}-1.0-py3-none-any.whl");
        b.wheel(name, &wheel);
        let package = &b.json(&["site", &wheel], 1)["packages"][0];
        assert_eq!(package["reasons"][0]["kind"], "foreign", "{name}: {package:#}");
        // Beside one for this torch's machine it counts for nothing.
        b.library(name, &format!("{name}/_C.so"), ADDS, LINKED);
        b.wheel(name, &wheel);
        b.json(&["site", &wheel], 0);
    }
    // What is installed and has nothing to do with torch still has not.
    b.write("site/old/old.so", elf_for_i386());
    b.package("site", "old", "1.0", "py3-none-any", "");
    b.write("site/old-1.0.dist-info/RECORD", "old/old.so,,\n");
    let report = b.json(&["site", "site"], 0);
    assert_eq!((&report["unrelated"], &report["packages"]), (&1.into(), &serde_json::json!([])));
    // A torch for such machines is none that can be judged by.
    for (site, file, bytes) in [
        ("elf32", "libc10.so", elf_for_i386()),
        ("pe32", "c10.dll", dll_for_i386()),
        ("macho32", "libc10.dylib", fat(&[(I386, dylib_for_i386())])),
    ] {
        b.write(&format!("{site}/torch/lib/{file}"), bytes);
        b.write(&format!("{site}/torch/version.py"), "__version__ = '1.4.0'\n");
        b.run(&["compat", site, "site"]).exits(2).says(&format!("{site} is a torch for 32-bit machines"));
    }
}

#[test]
fn of_a_fat_dylib_the_image_for_the_torchs_machine_counts() {
    let b = Bench::new();
    let beside_i386 = |image: Vec<u8>| fat(&[(I386, dylib_for_i386()), (ARM64, image)]);
    let c10 = macho("@rpath/libc10.dylib", &[], &[], &["c10_check"], &[]);
    b.write("site/torch/lib/libc10.dylib", beside_i386(c10));
    b.write("site/torch/version.py", "__version__ = '2.6.0'\n");
    b.package("site", "torch", "2.6.0", "cp311-none-macosx_11_0_arm64", "");
    for (name, symbol, fits) in [("there", "c10_check", true), ("gone", "c10_gone", false)] {
        let module = macho("_C.so", &["@rpath/libc10.dylib"], &[], &["f"], &[(symbol, 1)]);
        b.write(&format!("{name}/{name}/_C.so"), beside_i386(module));
        b.package(name, name, "1.0", "cp311-cp311-macosx_11_0_arm64", "");
        let wheel = format!("{name}-1.0-cp311-cp311-macosx_11_0_arm64.whl");
        b.wheel(name, &wheel);
        let report = b.json(&["site", &wheel], i32::from(!fits));
        assert_eq!(report["torch"]["machine"], "aarch64");
        assert_eq!(report["packages"][0]["loads"], fits, "{name}: {report:#}");
    }
}

/// An index with these files, each as bytes under its name.
fn index(files: &[(&'static str, &'static str, Vec<u8>)]) -> (Server, String) {
    let mut answers: Vec<(&'static str, Answer)> = Vec::new();
    let mut pages: BTreeMap<&'static str, String> = BTreeMap::new();
    for (project, path, bytes) in files {
        answers.push((path, Answer::Ok(bytes.clone())));
        let page = pages.entry(project).or_default();
        *page += &format!("<a href=\"{path}\">{}</a>\n", path.rsplit('/').next().unwrap());
    }
    for (project, page) in pages {
        answers.push((project, Answer::Typed("text/html", page.into_bytes())));
    }
    let server = Server::start(answers);
    let url = server.url.clone();
    (server, url)
}

#[test]
fn a_requirement_file_is_read_as_pip_reads_it_and_what_has_no_wheel_is_told() {
    let b = Bench::new();
    b.torch("2.6.0+cpu.libuv", false, &[]);
    let good = std::fs::read(b.path(&b.extension("good", ADDS, LINKED, "Requires-Dist: torch==2.6.0"))).unwrap();
    let (_server, url) = index(&[
        ("/good/", "/f/good-1.0-cp311-cp311-linux_x86_64.whl", good.clone()),
        ("/good/", "/f/good-2.0-cp311-cp311-linux_x86_64.whl", good),
        ("/scatter/", "/f/scatter-2.1.2.tar.gz", b"sources".to_vec()),
        ("/winonly/", "/f/winonly-1.0-cp311-cp311-win_amd64.whl", b"other".to_vec()),
    ]);
    b.write(
        "requirements.txt",
        "# what the project needs\ntorch==2.6.0\ngood \\\n  --hash=sha256:00\nscatter  # compiled\nwinonly\nelsewhere; sys_platform == 'win32'\n-c constraints.txt\n--extra-index-url https://example.com/simple\n-e .\n",
    );
    b.write("constraints.txt", "good<2\n");
    let mut command = b.command(&["compat", "--json", "site", "-r", "requirements.txt"]);
    let ran = Ran::of(command.env("PIP_INDEX_URL", &url), b.dir.path()).exits(1);
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    let seen: Vec<(&str, &str, &str)> = report["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| (p["package"].as_str().unwrap(), p["version"].as_str().unwrap(), p["verdict"].as_str().unwrap()))
        .collect();
    let unknown = "cannot-be-told";
    let wanted = [("torch", "2.6.0+cpu.libuv", "fits"), ("good", "1.0", "fits"), ("scatter", "2.1.2", unknown)];
    assert_eq!(seen[..3], wanted);
    assert_eq!(seen[3..], [("winonly", "1.0", unknown), (".", "", unknown)]);
    assert!(report["packages"][2]["gaps"][0]["needs"][0].as_str().unwrap().contains("there is its source only"));
    assert!(report["remarks"][0].as_str().unwrap().contains("--extra-index-url https://example.com/simple"));
}

#[test]
fn a_set_is_judged_by_the_wheels_beside_its_file_and_one_line_that_nobody_has_spoils_no_other() {
    let b = Bench::new();
    b.torch("2.6.0+cpu.libuv", false, &[]);
    let good = b.extension("good", ADDS, LINKED, "Requires-Dist: torch==2.6.0");
    b.write("dist/good-1.0+cpu.libuv-cp311-cp311-linux_x86_64.whl", std::fs::read(b.path(&good)).unwrap());
    let (_server, url) = index(&[("/x/", "/f/x-1.0.tar.gz", Vec::new())]);
    b.write(
        "dist/requirements.txt",
        "\u{feff}good==1.0+cpu.libuv ; python_full_version == '3.11.*' --hash=sha256:00\nnowhere==1\t--hash=sha256:00\n\
         x==9\nmoved @ https://elsewhere.invalid/m-1-py3-none-any.whl ; sys_platform == 'win32'\n",
    );
    let compat = |more: &[&str]| {
        let mut command = b.command(&[&["compat", "--json", "site"], more].concat());
        Ran::of(command.env("PIP_INDEX_URL", &url), b.dir.path())
    };
    let ran = compat(&["-r", "dist/requirements.txt"]).exits(1);
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    let seen: Vec<(&str, &str)> = report["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| (p["package"].as_str().unwrap(), p["verdict"].as_str().unwrap()))
        .collect();
    assert_eq!(seen, [("good", "fits"), ("nowhere", "cannot-be-told"), ("x", "cannot-be-told")]);
    let needs = report["packages"][1]["gaps"][0]["needs"][0].as_str().unwrap();
    assert!(needs.contains("nowhere==1: it is not beside the file"), "{needs}");
    for (line, says) in [("-r", "'-r' is no option"), ("--no-such-thing x", "'--no-such-thing x' is no option")] {
        b.write("odd.txt", format!("good\n{line}\n"));
        compat(&["-r", "odd.txt"]).exits(2).says("line 2 of").says(says);
    }
}

#[test]
fn another_torch_does_not_fit_and_of_a_folder_the_wheel_for_this_python_is_meant() {
    let b = Bench::new();
    b.torch("2.5.1", false, &[]);
    let other = std::fs::read(b.wheel("site", "torch-2.5.1-cp311-cp311-linux_x86_64.whl")).unwrap();
    std::fs::remove_dir_all(b.path("site")).unwrap();
    b.torch("2.6.0", false, &[]);
    b.write("torch-2.5.1-cp311-cp311-linux_x86_64.whl", other);
    let report = b.json(&["site", "torch-2.5.1-cp311-cp311-linux_x86_64.whl"], 1);
    assert_eq!(report["packages"][0]["verdict"], "does-not-fit");
    let good = std::fs::read(b.path(&b.extension("good", ADDS, LINKED, ""))).unwrap();
    for python in ["cp310", "cp311", "cp313"] {
        b.write(&format!("dist/good-1.0-{python}-{python}-linux_x86_64.whl"), &good);
    }
    let report = b.json(&["site", "dist"], 0);
    assert_eq!(report["packages"].as_array().unwrap().len(), 1, "{report}");
    b.write("alone/torch-2.5.1-cp311-cp311-linux_x86_64.whl", b"-");
    b.run(&["compat", "site", "alone"]).exits(2).says("holds a torch, and nothing beside it");
    // A package that cannot be read spoils no other.
    b.write("env/odd-1.dist-info/METADATA", b"Name: odd\nVersion: 1\nAuthor: J\xf6rg\nRequires-Dist: torch==1\n");
    b.write("env/odd-1.dist-info/RECORD", "odd.py,,\n");
    let report = b.json(&["site", "env"], 1);
    assert_eq!(report["packages"][0]["package"], "odd", "{report}");
}

#[test]
fn a_package_that_the_index_does_not_have_is_bad_input() {
    let b = Bench::new();
    b.torch("2.6.0", false, &[]);
    let (_server, url) = index(&[("/x/", "/f/x-1.0.tar.gz", Vec::new())]);
    for (what, says) in [("pypi:nowhere==1", "has no 'nowhere'"), ("pypi:x==9", "has no x==9")] {
        let mut command = b.command(&["compat", "site", what]);
        Ran::of(command.env("PIP_INDEX_URL", &url), b.dir.path()).exits(2).says(says);
    }
}

#[test]
fn a_remote_torch_is_read_once_and_then_remembered_by_its_digest() {
    let b = Bench::new();
    // Three megabytes that no compression makes less: they do not come with the wheel's directory.
    let noise: Vec<u8> = (0..100_000u32).flat_map(|i| Sha256::digest(i.to_le_bytes())).collect();
    let noise = b.write("noise", noise);
    b.torch("2.6.0", false, &[]);
    let big = format!("{TORCH_CPU}\nasm(\".section .rodata\\n.incbin \\\"{}\\\"\\n.text\");", noise.display());
    b.library("site", "torch/lib/libtorch_cpu.so", &big, &["-Wl,--no-as-needed", "-lc10"]);
    let bytes = std::fs::read(b.wheel("site", "torch-2.6.0-cp311-cp311-linux_x86_64.whl")).unwrap();
    let good = b.extension("good", ADDS, LINKED, "");
    let size = bytes.len();
    let path = "/torch-2.6.0-cp311-cp311-linux_x86_64.whl";
    let server = Server::start([(path, Answer::Ok(bytes))]);
    let url = format!("{}{path}", server.url);
    // Bytes asked for before the part that holds the wheel's directory.
    let asked = |from: usize| {
        let ranges = server.ranges(path).split_off(from);
        let before =
            ranges.iter().filter_map(|r| support::wanted(r.as_deref()?, size)).filter(|(s, _)| *s < size - (2 << 20));
        (ranges.len(), before.map(|(start, end)| end - start).sum::<usize>())
    };
    b.json(&[&url, &good], 0);
    let (requests, first) = asked(0);
    assert!(first > 1 << 20, "{first} of {size}");
    b.json(&[&url, &good], 0);
    let (more, second) = asked(requests);
    assert!(more > 0 && second < 1 << 20, "{second} of {size}, where the first took {first}");
}

#[test]
fn what_record_lies_about_is_not_remembered() {
    let b = Bench::new();
    b.torch("2.6.0", false, &[]);
    b.wheel("site", "torch-2.6.0-cp311-cp311-linux_x86_64.whl");
    let good = b.extension("good", ADDS, LINKED, "");
    // The same RECORD with another library.
    let site = b.path("site");
    let record = {
        let mut archive =
            zip::ZipArchive::new(std::fs::File::open(b.path("torch-2.6.0-cp311-cp311-linux_x86_64.whl")).unwrap())
                .unwrap();
        let mut text = String::new();
        std::io::Read::read_to_string(&mut archive.by_name("torch-2.6.0.dist-info/RECORD").unwrap(), &mut text)
            .unwrap();
        text
    };
    b.library(
        "site",
        "torch/lib/libtorch_cpu.so",
        "extern \"C\" int nothing(void) { return 0; }",
        &["-Wl,--no-as-needed", "-lc10"],
    );
    let mut zip = zip::ZipWriter::new(std::fs::File::create(b.path("lie.whl")).unwrap());
    let options = zip::write::SimpleFileOptions::default();
    for name in ["torch/lib/libc10.so", "torch/lib/libtorch_cpu.so", "torch/lib/libtorch_python.so", "torch/version.py"]
    {
        zip.start_file(name, options).unwrap();
        zip.write_all(&std::fs::read(site.join(name)).unwrap()).unwrap();
    }
    zip.start_file("torch-2.6.0.dist-info/RECORD", options).unwrap();
    zip.write_all(record.as_bytes()).unwrap();
    zip.finish().unwrap();
    b.json(&["lie.whl", &good], 1);
    b.json(&["torch-2.6.0-cp311-cp311-linux_x86_64.whl", &good], 0);
}

/// Compiles a DLL with mingw-w64.
fn dll(b: &Bench, site: &str, path: &str, source: &str, link: &[PathBuf]) {
    let code = b.write("lib.cpp", source);
    let out = b.path(&format!("{site}/{path}"));
    std::fs::create_dir_all(out.parent().unwrap()).unwrap();
    let status = Command::new("x86_64-w64-mingw32-g++-posix")
        .args(["-shared", "-O1", "-static-libgcc", "-static-libstdc++", "-o"])
        .arg(&out)
        .arg(&code)
        .args(link)
        .status();
    assert!(status.unwrap().success());
}

#[test]
#[ignore = "needs mingw-w64"]
fn a_dll_is_held_against_the_exports_of_the_very_dll_that_it_names() {
    let b = Bench::new();
    let export = "extern \"C\" __declspec(dllexport) int";
    dll(&b, "site", "torch/lib/c10.dll", &format!("{export} c10_check(void) {{ return 0; }}"), &[]);
    let c10 = b.path("site/torch/lib/c10.dll");
    dll(
        &b,
        "site",
        "torch/lib/torch_cpu.dll",
        &format!("{export} at_add(void) {{ return 0; }} {export} at_gone(void) {{ return 1; }}"),
        &[],
    );
    let cpu = b.path("site/torch/lib/torch_cpu.dll");
    b.write("site/torch/version.py", "__version__ = '2.6.0+cpu'\ncuda: Optional[str] = None\n");
    b.package("site", "torch", "2.6.0+cpu", "cp311-cp311-win_amd64", "");
    let calls = |name: &str| {
        format!("extern \"C\" __declspec(dllimport) int {name}(void); {export} f(void) {{ return {name}(); }}")
    };
    for name in ["at_add", "at_gone"] {
        dll(&b, name, &format!("{name}/_C.pyd"), &calls(name), &[cpu.clone(), c10.clone()]);
        b.package(name, name, "1.0", "cp311-cp311-win_amd64", "");
        b.wheel(name, &format!("{name}-1.0-cp311-cp311-win_amd64.whl"));
    }
    // One that also draws: what every Windows has is there.
    let draws = "extern \"C\" __declspec(dllimport) void* __stdcall GetStockObject(int);";
    let draws = format!("{} {draws} {export} g(void) {{ return GetStockObject(0) != 0; }}", calls("at_add"));
    dll(&b, "draws", "draws/_C.pyd", &draws, &[cpu.clone(), PathBuf::from("-lgdi32")]);
    b.package("draws", "draws", "1.0", "cp311-cp311-win_amd64", "");
    b.wheel("draws", "draws-1.0-cp311-cp311-win_amd64.whl");
    // A torch of which one function went to another DLL: to be there is not enough.
    dll(&b, "site", "torch/lib/torch_cpu.dll", &format!("{export} at_add(void) {{ return 0; }}"), &[]);
    dll(&b, "site", "torch/lib/c10.dll", &format!("{export} at_gone(void) {{ return 1; }}"), &[]);
    let torch = b.wheel("site", "torch-2.6.0+cpu-cp311-cp311-win_amd64.whl");
    let report = b.json(&[torch.to_str().unwrap(), "at_add-1.0-cp311-cp311-win_amd64.whl"], 0);
    assert_eq!(report["torch"]["system"], "Windows");
    b.json(&[torch.to_str().unwrap(), "draws-1.0-cp311-cp311-win_amd64.whl"], 0);
    let report = b.json(&[torch.to_str().unwrap(), "at_gone-1.0-cp311-cp311-win_amd64.whl"], 1);
    let reason = &report["packages"][0]["reasons"][0];
    assert_eq!(
        (reason["of"].as_str(), reason["first"][0].as_str()),
        (Some("torch_cpu.dll"), Some("at_gone")),
        "{report:#}"
    );
}

#[test]
#[ignore = "needs mingw-w64"]
fn a_dll_of_cuda_is_known_by_its_name_whatever_version_is_in_it() {
    let b = Bench::new();
    let export = "extern \"C\" __declspec(dllexport) int";
    let import = "extern \"C\" __declspec(dllimport) int";
    for n in ["11", "12"] {
        let source = format!("{export} cublasCreate(void) {{ return 0; }}");
        dll(&b, "cuda", &format!("cublas64_{n}.dll"), &source, &[]);
    }
    let cublas = |n: &str| b.path(&format!("cuda/cublas64_{n}.dll"));
    dll(&b, "site", "torch/lib/c10.dll", &format!("{export} c10_check(void) {{ return 0; }}"), &[]);
    dll(&b, "site", "torch/lib/torch_cpu.dll", &format!("{export} at_add(void) {{ return 0; }}"), &[]);
    let needs = format!("{import} cublasCreate(void); {export} c10_cuda_check(void) {{ return cublasCreate(); }}");
    dll(&b, "site", "torch/lib/c10_cuda.dll", &needs, &[cublas("12")]);
    b.write("site/torch/version.py", "__version__ = '2.6.0+cu124'\ncuda: Optional[str] = '12.4'\n");
    b.package("site", "torch", "2.6.0+cu124", "cp311-cp311-win_amd64", "");
    let source = format!(
        "{import} at_add(void); {import} cublasCreate(void); {export} f(void) {{ return at_add() + cublasCreate(); }}"
    );
    let cpu = b.path("site/torch/lib/torch_cpu.dll");
    for (name, n, code) in [("same", "12", 0), ("other", "11", 1)] {
        dll(&b, name, &format!("{name}/_C.pyd"), &source, &[cpu.clone(), cublas(n)]);
        b.package(name, name, "1.0", "cp311-cp311-win_amd64", "");
        let wheel = format!("{name}-1.0-cp311-cp311-win_amd64.whl");
        b.wheel(name, &wheel);
        let package = &b.json(&["site", &wheel], code)["packages"][0];
        if code == 1 {
            assert_eq!(package["cause"], "other-cuda", "{package:#}");
            assert_eq!(package["reasons"][0]["needs"], "cublas64_11.dll");
            assert_eq!(package["reasons"][0]["instead"], "cublas64_12.dll");
        }
    }
}

/// A 64-bit Mach-O library for arm64 that needs `needed`, re-exports `reexported`, defines `defined`, and takes each of
/// `undefined` from the library with that number.
fn macho(name: &str, needed: &[&str], reexported: &[&str], defined: &[&str], undefined: &[(&str, u8)]) -> Vec<u8> {
    let dylib = |command: u32, path: &str| {
        let size = (24 + path.len() + 1).next_multiple_of(8);
        let mut out: Vec<u8> = [command, size as u32, 24, 2, 0, 0].iter().flat_map(|v| v.to_le_bytes()).collect();
        out.extend(path.as_bytes());
        out.resize(size, 0);
        out
    };
    let mut commands = vec![dylib(0xd, name)];
    commands.extend(needed.iter().map(|n| dylib(0xc, n)));
    commands.extend(reexported.iter().map(|n| dylib(0x8000_001f, n)));
    let size = commands.iter().map(Vec::len).sum::<usize>() + 24;
    let mut strings = vec![0u8];
    let mut symbols: Vec<u8> = Vec::new();
    let named =
        defined.iter().map(|n| (*n, 0x0f, 1u8, 0u8)).chain(undefined.iter().map(|(n, from)| (*n, 0x01, 0, *from)));
    let mut count = 0u32;
    for (symbol, kind, section, from) in named {
        symbols.extend((strings.len() as u32).to_le_bytes());
        symbols.extend([kind, section, 0, from]);
        symbols.extend(u64::from(section).to_le_bytes());
        strings.extend(format!("_{symbol}\0").as_bytes());
        count += 1;
    }
    let at = (32 + size) as u32;
    let symtab = [0x2, 24, at, count, at + symbols.len() as u32, strings.len() as u32];
    commands.push(symtab.iter().flat_map(|v| v.to_le_bytes()).collect());
    let header = [0xfeed_facf, 0x0100_000c, 0, 6, commands.len() as u32, size as u32, 0, 0];
    let mut out: Vec<u8> = header.iter().flat_map(|v: &u32| v.to_le_bytes()).collect();
    commands.into_iter().for_each(|c| out.extend(c));
    out.extend(symbols);
    out.extend(strings);
    out
}

#[test]
fn a_dylib_is_held_against_the_library_of_its_number_and_what_that_one_gives_out() {
    let b = Bench::new();
    b.write("site/torch/lib/libc10.dylib", macho("@rpath/libc10.dylib", &[], &[], &["c10_check"], &[]));
    b.write("site/torch/lib/libtorch_cpu.dylib", macho("@rpath/libtorch_cpu.dylib", &[], &[], &["at_add"], &[]));
    let torch = macho("@rpath/libtorch.dylib", &[], &["@rpath/libtorch_cpu.dylib"], &[], &[]);
    b.write("site/torch/lib/libtorch.dylib", torch);
    b.write("site/torch/version.py", "__version__ = '2.6.0'\n");
    b.package("site", "torch", "2.6.0", "cp311-none-macosx_11_0_arm64", "");
    let torch = b.wheel("site", "torch-2.6.0-cp311-none-macosx_11_0_arm64.whl");
    let needed = ["@rpath/libc10.dylib", "@rpath/libtorch.dylib", "/usr/lib/libSystem.B.dylib"];
    for (name, symbol, from, fits) in [
        ("direct", "c10_check", 1, true),
        ("givenout", "at_add", 2, true),
        ("elsewhere", "at_add", 1, false),
        ("system", "malloc", 3, true),
        ("python", "PyList_New", 0xfe, true),
        ("gone", "aoti_torch_gone", 0xfe, false),
    ] {
        b.write(&format!("{name}/{name}/_C.so"), macho("_C.so", &needed, &[], &["f"], &[(symbol, from)]));
        b.package(name, name, "1.0", "cp311-cp311-macosx_11_0_arm64", "");
        let wheel = b.wheel(name, &format!("{name}-1.0-cp311-cp311-macosx_11_0_arm64.whl"));
        let report = b.json(&[torch.to_str().unwrap(), wheel.to_str().unwrap()], i32::from(!fits));
        assert_eq!(report["packages"][0]["loads"], fits, "{name}: {report:#}");
    }
}

#[test]
fn what_torch_itself_needs_is_there_wherever_it_is() {
    let b = Bench::new();
    b.torch("2.6.0+cu124", true, &[]);
    let torch = b.wheel("site", "torch-2.6.0+cu124-cp311-cp311-linux_x86_64.whl");
    let cudart = b.path("cuda/libcudart.so.12");
    let source = "extern \"C\" int cudaMalloc(void); extern \"C\" int f(void) { return cudaMalloc(); }";
    let wheel = b.extension("gpu", source, &[LINKED, &[cudart.to_str().unwrap()]].concat(), "");
    b.json(&[torch.to_str().unwrap(), &wheel], 0);
}

#[test]
fn the_doctor_names_what_a_build_of_another_version_would_break() {
    let b = Bench::new();
    // No recipe is of this version: the nearest one is proposed.
    b.torch("2.5.1+cpu", false, &[]);
    b.write("site/torch/__init__.py", "");
    b.library("site", "compiled/_C.so", ADDS, LINKED);
    let stable = "extern \"C\" int aoti_torch_empty(void); extern \"C\" int f(void) { return aoti_torch_empty(); }";
    b.library("site", "stable/_C.so", stable, &["-Wl,--no-as-needed", "-ltorch_cpu"]);
    for (name, asks) in [
        ("compiled", ""),
        ("stable", "Requires-Dist: torch>=2.4\n"),
        ("pinned", "Requires-Dist: torch==2.5.1\n"),
        ("free", "Requires-Dist: torch\n"),
        // It does not hold today either.
        ("older", "Requires-Dist: torch==2.4.0\n"),
    ] {
        b.package("site", name, "1.0", "py3-none-any", asks);
    }
    let mut command = b.command(&["doctor", "--dry-run", "--json"]);
    let ran = Ran::of(command.env("PYTHONPATH", b.path("site")), b.dir.path());
    let found: Value =
        serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{e}\n{}\n{}", ran.stdout, ran.stderr));
    let remedies = found["remedies"].to_string();
    assert!(remedies.contains("of another version: 2.6.0 in place of 2.5.1"), "{remedies}");
    let broken = by_package(&found["breaks"], "cause");
    assert_eq!(broken, [("compiled", "other-version"), ("pinned", "other-pin")], "{}", ran.stdout);
}

#[test]
fn the_doctor_names_what_the_build_that_it_proposes_would_break() {
    const OLD: &[&str] = &["-D_GLIBCXX_USE_CXX11_ABI=0"];
    let gpu = "namespace c10 { namespace cuda { int current_device(); } } extern \"C\" int f(void) { return c10::cuda::current_device(); }";
    // Stock's build of 2.6.0 has the old strings with CUDA and without. The recipe with CUDA has them
    // too: nothing breaks, CUDA's users neither. The one without has the new ones.
    for (cuda, breaks) in [(true, &[][..]), (false, &[("oldstrings", "old-strings")])] {
        let b = Bench::new();
        b.torch(if cuda { "2.6.0+cu124" } else { "2.6.0+cpu" }, cuda, OLD);
        b.write("site/torch/__init__.py", "");
        if cuda {
            b.library("site", "gpu/_C.so", gpu, &[LINKED, &["-lc10_cuda"]].concat());
            b.package("site", "gpu", "1.0", "py3-none-any", "");
        }
        b.library("site", "oldstrings/_C.so", FAILS, &[LINKED, OLD].concat());
        b.package("site", "oldstrings", "1.0", "py3-none-any", "");
        b.library("site", "stays/_C.so", ADDS, LINKED);
        b.package("site", "stays", "1.0", "py3-none-any", "");
        let mut command = b.command(&["doctor", "--dry-run", "--json"]);
        let ran = Ran::of(command.env("PYTHONPATH", b.path("site")), b.dir.path());
        let found: Value =
            serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{e}\n{}\n{}", ran.stdout, ran.stderr));
        let broken = by_package(&found["breaks"], "cause");
        assert_eq!(broken, breaks, "{}", ran.stdout);
        let mut command = b.command(&["doctor", "--dry-run"]);
        let ran = Ran::of(command.env("PYTHONPATH", b.path("site")), b.dir.path());
        if cuda {
            assert!(!ran.stdout.contains("oldstrings 1.0: "), "{}", ran.stdout);
        } else {
            ran.says("oldstrings 1.0: ");
        }
    }
}

#[test]
fn the_doctor_names_what_a_build_for_another_cuda_would_break_and_prefers_the_same_one() {
    let b = Bench::new();
    b.torch("2.12.1+cu130", false, &[]);
    b.library("cuda", "libcudart.so.13", "extern \"C\" int cudaMalloc(void) { return 0; }", &[]);
    let cudart = b.path("cuda/libcudart.so.13");
    let cudart = cudart.to_str().unwrap();
    b.library("site", "torch/lib/libc10_cuda.so", CUDA, &["-Wl,--no-as-needed", "-lc10", cudart]);
    b.write("site/torch/version.py", "__version__ = '2.12.1+cu130'\ncuda: Optional[str] = '13.0'\n");
    b.write("site/torch/__init__.py", "");
    let gpu = "namespace c10 { namespace cuda { int current_device(); } } extern \"C\" int cudaMalloc(void);\n extern \"C\" int f(void) { return c10::cuda::current_device() + cudaMalloc(); }";
    let linked = [LINKED, &["-lc10_cuda", cudart]].concat();
    b.library("site", "gpu/_C.so", gpu, &linked);
    b.library("site", "brings/_C.so", gpu, &linked);
    b.library("site", "stays/_C.so", ADDS, LINKED);
    for (name, asks) in [("gpu", ""), ("brings", "Requires-Dist: nvidia-cuda-runtime==13.0.96\n"), ("stays", "")] {
        b.package("site", name, "1.0", "py3-none-any", asks);
    }
    // A card that CUDA 13 has no code for, and none: then the CUDA that is there goes before another one.
    let old_card = "echo 'NVIDIA T, 580.95.05, 24564 MiB, 6.1'\n";
    for (says, recipe, breaks) in
        [(old_card, "torch-2.12.1-cu126", &[("gpu", "other-cuda")][..]), ("", "torch-2.12.1-cu130", &[])]
    {
        let tool = b.write("bin/nvidia-smi", format!("#!/bin/sh\n{says}"));
        std::fs::set_permissions(&tool, std::fs::Permissions::from_mode(0o755)).unwrap();
        let path = format!("{}:{}", b.path("bin").display(), std::env::var("PATH").unwrap());
        let mut command = b.command(&["doctor", "--dry-run", "--json"]);
        let ran = Ran::of(command.env("PYTHONPATH", b.path("site")).env("PATH", path), b.dir.path());
        let found: Value =
            serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{e}\n{}\n{}", ran.stdout, ran.stderr));
        let lines: Vec<String> = found["remedies"].as_array().unwrap().iter().map(|r| r["lines"].to_string()).collect();
        let first = lines.iter().find(|l| l.contains("build-torch")).unwrap();
        assert!(first.contains(&format!("--recipe {recipe} ")), "{lines:?}");
        assert_eq!(by_package(&found["breaks"], "cause"), breaks, "{}", ran.stdout);
    }
}
