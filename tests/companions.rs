//! Companions: packages that are compiled against the torch that was just built, on stand-ins for both.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use torchmill::recipe::{Lock, Locked};

use crate::standin::{dist, files, workspace};
use crate::support::{Ran, Workspace, root, sha256, tar};

const SETUP: &str = r#"import os
import torch
from setuptools import Extension, setup
folder = os.path.join(os.path.dirname(torch.__file__), "lib")
setup(
    name="demo", version=os.environ["BUILD_VERSION"], packages=["demo"], install_requires=["torch", "torch-extras"],
    ext_modules=[Extension("demo._C", ["src/demo.cpp"], libraries=["c10"], library_dirs=[folder])],
)
"#;

const EXTENSION: &str = r#"#include <Python.h>
int c10_answer();
static PyObject* answer(PyObject*, PyObject*) { return Py_BuildValue("is", c10_answer(), __FILE__); }
static PyMethodDef methods[] = {{"answer", answer, METH_NOARGS, ""}, {nullptr, nullptr, 0, nullptr}};
static PyModuleDef module = {PyModuleDef_HEAD_INIT, "_C", "", -1, methods};
PyMODINIT_FUNC PyInit__C() { return PyModule_Create(&module); }
"#;

/// A workspace with a torch, `standin`, and a companion for it, `demo`.
fn with_companion(edit: impl Fn(String) -> String) -> Workspace {
    let w = workspace(&files());
    let of_demo: BTreeMap<String, String> = [
        ("setup.py", SETUP),
        ("src/demo.cpp", EXTENSION),
        ("demo/__init__.py", "from ._C import answer\n"),
        ("LICENSE", "the licence of demo\n"),
        (
            "pyproject.toml",
            "[build-system]\nrequires = [\"setuptools\"]\nbuild-backend = \"setuptools.build_meta:__legacy__\"\n",
        ),
    ]
    .map(|(name, text)| (name.to_owned(), text.to_owned()))
    .into();
    let bytes = tar("demo", &of_demo);
    w.write("demo.tar", &bytes);
    let torch: toml::Table =
        toml::from_str(&std::fs::read_to_string(root().join("recipes/torch-2.6.0-cpu.toml")).unwrap()).unwrap();
    let mut python = torch["python"].as_table().unwrap().clone();
    python.remove("verify");
    let python = toml::to_string(&toml::Table::from_iter([("python".to_owned(), python.into())])).unwrap();
    let recipe = format!(
        r#"schema = 1
[companion]
package = "demo"
version = "1.0"
torch = "2.6.0"
epoch = 1738108800
license = "MIT"
{python}
[environment]
BUILD_VERSION = "{{version}}"
[lacks]
"colours" = "nobody painted it"
[[source]]
name = "demo"
coordinates = ["file:demo.tar"]
into = [{{ tree = ".", strip = 1 }}]
license = "MIT"
license-files = ["demo/LICENSE"]
"#
    );
    w.write("recipes/demo-1.0.toml", edit(recipe));
    let here = torchmill::recipe::Workspace { root: w.path().to_owned() };
    if let Ok(companion) = here.companion("demo-1.0") {
        let real = std::fs::read_to_string(root().join("recipes/torch-2.6.0-cpu.lock")).unwrap();
        let mut lock: Lock = toml::from_str(&real).unwrap();
        lock.recipe = Lock::recipe_digest(companion.draws());
        let locked = Locked { sha256: sha256(&bytes), size: bytes.len() as u64, coordinate: None };
        lock.source = BTreeMap::from([("demo".to_owned(), locked)]);
        lock.python.values_mut().flat_map(|m| m.values_mut()).for_each(|p| p.verify.clear());
        w.write("recipes/demo-1.0.lock", lock.to_toml("demo-1.0").unwrap());
    }
    w
}

const BUILD: [&str; 7] = ["build-torch", "--recipe", "standin", "--with", "demo", "--until", "companion"];

/// The folder of a finished companion.
fn built(w: &Workspace, more: &[&str]) -> PathBuf {
    let ran = w.run(&[&BUILD[..], &["--json"], more].concat()).exits(0);
    let json: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let folder = json["outcome"]["stopped"]["folder"].as_str().unwrap();
    PathBuf::from(folder.replace("[DIR]", w.path().to_str().unwrap()))
}

fn ending(folder: &Path, end: &str) -> PathBuf {
    let mut found = std::fs::read_dir(folder).unwrap().flatten().map(|e| e.path());
    found.find(|p| p.to_str().unwrap().ends_with(end)).unwrap()
}

fn member(wheel: &Path, name: &str) -> String {
    let mut archive = zip::ZipArchive::new(std::fs::File::open(wheel).unwrap()).unwrap();
    let mut text = String::new();
    archive.by_name(name).unwrap().read_to_string(&mut text).unwrap();
    text
}

/// What `publish --json` said of the wheel called `name` beside the torch that it asks for.
fn beside_its_torch(ran: &Ran, name: &str) -> serde_json::Value {
    let said: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let judged = said["judged"].as_array().unwrap().iter().find(|j| j["filename"] == name).unwrap();
    let checks = judged["checks"].as_array().unwrap();
    checks.iter().find(|check| check["name"] == "fits its torch").unwrap().clone()
}

#[test]
fn a_companion_is_compiled_against_the_wheel_that_was_just_built_and_asks_for_no_other() {
    let w = with_companion(|r| r);
    let folder = built(&w, &[]);
    let wheel = ending(&folder, ".whl");
    let name = wheel.file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with("demo-1.0+standin-cp3") && name.contains("-manylinux_2_"), "{name}");
    let metadata = member(&wheel, "demo-1.0+standin.dist-info/METADATA");
    assert!(metadata.contains("Requires-Dist: torch==2.6.0+standin\n"), "{metadata}");
    assert!(metadata.contains("Requires-Dist: torch-extras\n"), "{metadata}");
    assert_eq!(member(&wheel, "demo-1.0+standin.dist-info/licenses/demo/LICENSE"), "the licence of demo\n");
    let bill: serde_json::Value =
        serde_json::from_str(&member(&wheel, "demo-1.0+standin.dist-info/sboms/torchmill.cdx.json")).unwrap();
    assert_eq!(bill["metadata"]["component"]["purl"], "pkg:pypi/demo@1.0%2Bstandin");

    // It says which torch it was compiled against, and what it says holds.
    let statement: serde_json::Value =
        serde_json::from_slice(&std::fs::read(ending(&folder, ".provenance.json")).unwrap()).unwrap();
    assert_eq!(statement["subject"].as_array().unwrap().len(), 3);
    let made: serde_json::Value =
        serde_json::from_str(&member(&wheel, "demo-1.0+standin.dist-info/torchmill/build.json")).unwrap();
    let torch = w.run(&["build-torch", "--recipe", "standin", "--until", "wheel", "--json"]).exits(0);
    let torch: serde_json::Value = serde_json::from_str(&torch.stdout).unwrap();
    let torch = torch["outcome"]["stopped"]["folder"].as_str().unwrap().replace("[DIR]", w.path().to_str().unwrap());
    let torch = ending(Path::new(&torch), ".whl");
    assert_eq!(made["toolchain"]["torch"]["sha256"], sha256(&std::fs::read(&torch).unwrap()));
    w.run(&["verify", wheel.to_str().unwrap()]).exits(0).says("recipe demo-1.0");

    // Both go out together: it is held against the torch that it asks for. Without that one nobody can say.
    let provenance = w.run(&["build-torch", "--recipe", "standin", "--until", "provenance", "--json"]).exits(0);
    let provenance: serde_json::Value = serde_json::from_str(&provenance.stdout).unwrap();
    let beside = provenance["outcome"]["stopped"]["folder"].as_str().unwrap();
    let beside = PathBuf::from(beside.replace("[DIR]", w.path().to_str().unwrap()));
    let set = w.path().join("set");
    std::fs::create_dir(&set).unwrap();
    for file in [&wheel, &ending(&folder, ".provenance.json"), &torch, &ending(&beside, ".provenance.json")] {
        std::fs::copy(file, set.join(file.file_name().unwrap())).unwrap();
    }
    let publish = || w.run(&["publish", "--dry-run", "--json", set.to_str().unwrap()]).exits(0);
    let check = beside_its_torch(&publish(), name);
    assert_eq!(check["ok"], true, "{check}");
    std::fs::remove_file(set.join(torch.file_name().unwrap())).unwrap();
    let check = beside_its_torch(&publish(), name);
    assert!(check["ok"].is_null(), "{check}");
    assert!(check["said"].as_str().unwrap().contains("does not go out with it for its platform"), "{check}");

    // And it runs beside it: its library finds those of torch by its run path alone.
    let python = torchmill_python();
    let env = w.path().join("env");
    let run = |command: &mut Command| {
        let out = command.output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    };
    run(Command::new(python).args(["-m", "venv"]).arg(&env));
    let own = env.join("bin/python");
    run(Command::new(&own).args(["-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]).args([&torch, &wheel]));
    let said = run(Command::new(&own).args(["-c", "import demo; print(*demo.answer())"]));
    assert_eq!(said, "42 src/demo.cpp\n");
}

fn torchmill_python() -> &'static str {
    "python3"
}

#[test]
fn a_companion_does_not_go_out_with_a_torch_that_it_does_not_load_on() {
    let w = with_companion(|r| r);
    let folder = built(&w, &[]);
    let wheel = ending(&folder, ".whl");
    let name = wheel.file_name().unwrap().to_str().unwrap();
    // A torch of the same version and for the same Python, without the function that the companion calls.
    let mut sources = files();
    sources.insert("c10/c10.cpp".into(), "int c10_question() { return 42; }\n".into());
    let of_torch = workspace(&sources);
    let torch = dist(&of_torch);
    let set = w.path().join("set");
    std::fs::create_dir(&set).unwrap();
    for file in [&wheel, &ending(&folder, ".provenance.json"), &torch.wheel, &torch.statement] {
        std::fs::copy(file, set.join(file.file_name().unwrap())).unwrap();
    }
    let set = set.to_str().unwrap();
    let check = beside_its_torch(&w.run(&["publish", "--dry-run", "--json", set]).exits(1), name);
    assert_eq!(check["ok"], false, "{check}");
    let said = check["said"].as_str().unwrap();
    assert!(said.contains("does not fit") && said.contains("needs a symbol that nothing has"), "{said}");
    // It keeps the torch back as well.
    let index = w.path().join("index");
    w.run(&["publish", "--index", index.to_str().unwrap(), set])
        .exits(1)
        .says(&format!("nothing was published: {name} (fits its torch) may not go out"));
    assert!(!index.exists());
}

#[test]
fn a_companion_has_the_same_bytes_wherever_it_is_built() {
    let w = with_companion(|r| r);
    let digest = |folder: &Path| sha256(&std::fs::read(ending(folder, ".whl")).unwrap());
    let first = digest(&built(&w, &[]));
    // Another store, of another length of path; nothing of it was compiled before.
    let other = w.path().join("elsewhere/a/rather/long/way/down");
    let store = ["--store", other.to_str().unwrap()];
    assert_eq!(digest(&built(&w, &store)), first);
    // Nothing is done twice.
    let ran = w.run(&BUILD).exits(0);
    assert!(!ran.stderr.contains("» companion"), "{}", ran.stderr);
}

#[test]
fn a_companion_that_nobody_can_build_is_told_before_anything_is_built() {
    let w = with_companion(|r| r);
    let asked = |with: &str| w.run(&["build-torch", "--recipe", "standin", "--with", with, "--dry-run"]);
    asked("dmo").exits(2).says("no recipe for a companion 'dmo'").says("did you mean 'demo'?");
    w.run(&["build-torch", "--recipe", "demo-1.0", "--dry-run"])
        .exits(2)
        .says("the recipe of a companion, and no torch");
    asked("demo").exits(0).says("companion");

    let w = with_companion(|r| r.replace("torch = \"2.6.0\"", "torch = \"2.7.1\""));
    w.run(&["build-torch", "--recipe", "standin", "--with", "demo", "--dry-run"])
        .exits(2)
        .says("no recipe builds demo for torch 2.6.0")
        .says("demo-1.0 for torch 2.7.1");

    let w = with_companion(|r| r.replace("BUILD_VERSION = \"{version}\"", "BUILD_VERSION = \"{prefix:codecs}\""));
    w.run(&BUILD).exits(2).says("names a prefix 'codecs', which nothing makes");

    // The build itself says another version than the recipe.
    let w = with_companion(|r| r.replace("BUILD_VERSION = \"{version}\"", "BUILD_VERSION = \"9.9\""));
    w.run(&BUILD).exits(3).says("its build made demo 9.9").says("[environment]");

    let w = with_companion(|r| r.replace("into = [{ tree = \".\", strip = 1 }]", "into = [{ prefix = \"x\" }]"));
    w.run(&["build-torch", "--recipe", "standin", "--with", "demo", "--dry-run"])
        .exits(2)
        .says("exactly one source is the package itself");
}

#[test]
fn a_companion_without_cuda_is_refused_beside_a_torch_that_has_it() {
    let asked = |edit: fn(String) -> String| {
        let w = with_companion(edit);
        let torch = std::fs::read_to_string(w.path().join("recipes/standin.toml")).unwrap();
        let cuda = "[cuda]\nversion = \"12.4\"\narchitectures = [\"9.0\"]\n[features]\nUSE_CUDA = true";
        w.write("recipes/standin.toml", torch.replace("[features]", cuda));
        w.run(&["build-torch", "--recipe", "standin", "--with", "demo", "--dry-run"])
    };
    asked(|r| r)
        .exits(2)
        .says("the recipe demo-1.0 compiles demo without CUDA, and standin has it")
        .says("leave it out of --with");
    // One that has it is let through: what is missing then is the toolkit.
    asked(|r| r.replace("[environment]\n", "[environment]\nFORCE_CUDA = \"1\"\n"))
        .exits(2)
        .says("the recipe standin brings no CUDA toolkit");
}

#[test]
fn companions_are_in_the_list_of_recipes_and_no_torch_is_mistaken_for_one() {
    let here = torchmill::recipe::Workspace { root: root() };
    let companions = here.companion_names();
    assert!(companions.contains(&"torchvision-0.21.0".to_owned()), "{companions:?}");
    assert!(!here.recipe_names().iter().any(|name| companions.contains(name)));
    for name in &companions {
        let companion = here.companion(name).unwrap();
        assert_eq!(*name, format!("{}-{}", companion.package, companion.version));
        let torch =
            here.recipe_names().into_iter().map(|n| here.load(&n).unwrap()).any(|r| r.torch.version == companion.torch);
        assert!(torch, "{name} is for torch {}, which has no recipe", companion.torch);
        if let Ok(lock) = std::fs::read_to_string(here.recipe_path(name).with_extension("lock")) {
            let lock: Lock = toml::from_str(&lock).unwrap();
            assert_eq!(lock.recipe, Lock::recipe_digest(companion.draws()), "the lock of {name} is stale");
        }
    }
    let w = with_companion(|r| r);
    let ran = w.run(&["recipe", "list", "--json"]).exits(0);
    let json: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(json["companions"][0]["recipe"], "demo-1.0");
    assert_eq!(json["companions"][0]["torch"], "2.6.0");
    w.run(&["recipe", "list"]).exits(0).says("demo-1.0");
    w.run(&["lock", "--check", "--recipe", "demo-1.0"]).exits(0);
}

// --- what others compiled, beside ours ------------------------------------------------------------

/// Uses all three on the processor: boxes, a picture that another program wrote, a tone at half its rate.
const USE: &str = r#"import json, math, struct, zlib
import torch, torchaudio, torchvision

boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [1.0, 1.0, 10.0, 10.0], [20.0, 20.0, 30.0, 30.0]])
kept = torchvision.ops.nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5).tolist()

def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

rows = [bytes([255, 0, 0, 0, 255, 0]), bytes([0, 0, 255, 9, 8, 7])]
head = struct.pack(">IIBBBBB", 2, 2, 8, 2, 0, 0, 0)
body = zlib.compress(b"".join(b"\0" + row for row in rows))
png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
image = torchvision.io.decode_png(torch.frombuffer(bytearray(png), dtype=torch.uint8)).permute(1, 2, 0).tolist()

def tone(rate):
    return torch.sin(torch.arange(rate) / rate * (2 * math.pi * 440))

half = torchaudio.functional.resample(tone(16000), 16000, 8000)
off = (half - tone(8000))[100:-100].abs().max().item()
print(json.dumps({
    "torch": torch.__version__, "torchvision": torchvision.__version__, "torchaudio": torchaudio.__version__,
    "kept": kept, "image": image, "samples": len(half), "off": off,
}))
"#;

fn succeeds(command: &mut Command) -> String {
    let out = command.output().unwrap();
    assert!(
        out.status.success(),
        "{command:?}:\n{}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8(out.stdout).unwrap()
}

/// Installs the wheels of `dist/` whose names begin with `torch`, then the stock packages `beside` them as pip chooses,
/// and uses both. The torch that pip installed first must be the torch that is there in the end, byte for byte.
fn stock_is_used_beside(torch: &str, recipe: &str, beside: [(&str, &str); 2]) {
    let dist = root().join("dist");
    let is_ours = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with(torch) && name.ends_with(".whl")
    };
    let found = std::fs::read_dir(&dist).into_iter().flatten().flatten().map(|e| e.path());
    let wheels: Vec<PathBuf> = found.filter(is_ours).collect();
    assert!(
        !wheels.is_empty(),
        "there is no {torch}*.whl in {}, and without one nothing is shown: cargo xtask build-torch --recipe {recipe}",
        dist.display()
    );
    for wheel in wheels {
        let name = wheel.file_name().unwrap().to_str().unwrap();
        let mut parts = name.split('-').skip(1);
        let (version, python) = (parts.next().unwrap(), parts.next().unwrap());
        // `cp311` is 3.11.
        let python = format!("python{}.{}", &python[2..3], &python[3..]);
        let scratch = tempfile::tempdir().unwrap();
        let env = scratch.path().join("env");
        succeeds(Command::new(&python).args(["-m", "venv"]).arg(&env));
        let own = env.join("bin/python");
        let pip = || {
            let mut pip = Command::new(&own);
            pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:"]);
            pip
        };
        succeeds(pip().arg(&wheel));
        let site =
            succeeds(Command::new(&own).args(["-c", "import sysconfig; print(sysconfig.get_paths()['platlib'])"]));
        let site = PathBuf::from(site.trim());
        let digests = || {
            ["torch/lib/libtorch_cpu.so".to_owned(), format!("torch-{version}.dist-info/RECORD")]
                .map(|file| sha256(&std::fs::read(site.join(file)).unwrap()))
        };
        let before = digests();
        let keep = scratch.path().join("keep.txt");
        std::fs::write(&keep, format!("torch=={version}\n")).unwrap();
        succeeds(pip().args(beside.map(|(name, version)| format!("{name}=={version}"))).arg("--constraint").arg(&keep));
        assert_eq!(digests(), before, "pip touched torch {version}");
        let said = succeeds(Command::new(&own).args(["-c", USE]).env("CUDA_VISIBLE_DEVICES", ""));
        let said: serde_json::Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
        assert_eq!(said["torch"], version, "{said}");
        for (name, version) in beside {
            assert!(said[name].as_str().unwrap().starts_with(version), "{said}");
        }
        assert_eq!(said["kept"], serde_json::json!([0, 2]), "{said}");
        assert_eq!(said["image"], serde_json::json!([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [9, 8, 7]]]), "{said}");
        assert_eq!(said["samples"], 8000, "{said}");
        assert!(said["off"].as_f64().unwrap() < 0.01, "{said}");
        assert_eq!(digests(), before, "using it touched torch {version}");
    }
}

#[test]
#[ignore = "takes too much: downloads NVIDIA's libraries, and dist must have a wheel for CUDA 13.0"]
fn stock_companions_are_used_beside_our_wheel_for_cuda_13() {
    let beside = [("torchvision", "0.27.1"), ("torchaudio", "2.11.0")];
    stock_is_used_beside("torch-2.12.1+cu130", "torch-2.12.1-cu130-sm90", beside);
}

#[test]
#[ignore = "takes too much: downloads NVIDIA's libraries, and dist must have a wheel for CUDA 12.4"]
fn stock_companions_are_used_beside_our_wheel_for_cuda_12() {
    let beside = [("torchvision", "0.21.0"), ("torchaudio", "2.6.0")];
    stock_is_used_beside("torch-2.6.0+cu124", "torch-2.6.0-cu124-sm90", beside);
}
