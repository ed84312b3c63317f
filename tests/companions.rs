//! Companions: packages that are compiled against the torch that was just built, on stand-ins for both.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use torchmill::recipe::{Lock, Locked};

use crate::standin::{files, workspace};
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
    let judged = |ran: &Ran| {
        let said: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        let all = said["judged"].as_array().unwrap().clone();
        let demo = all.into_iter().find(|j| j["filename"] == name).unwrap();
        let checks = demo["checks"].as_array().unwrap().clone();
        checks.into_iter().find(|check| check["name"] == "fits its torch").unwrap()
    };
    let check = judged(&publish());
    assert_eq!(check["ok"], true, "{check}");
    std::fs::remove_file(set.join(torch.file_name().unwrap())).unwrap();
    let check = judged(&publish());
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
