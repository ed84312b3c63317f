//! What upstream's tree says of itself.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::str::FromStr;

use pep440_rs::Version;
use serde::Deserialize;

use crate::error::{Context, Error, Result};
use crate::event::Sink;
use crate::recipe::{Backend, features, no_store};
use crate::source::git::{Snapshot, Submodule, tags};

/// The file whose object makes a store with libuv.
const STORE: &str = "torch/csrc/distributed/c10d/TCPStoreLibUvBackend.cpp";

/// How its list file asks whether the compiler is GCC.
const GCC: &str = "CMAKE_COMPILER_IS_GNUCXX";

/// How it asks whether it is Clang, and not Apple's.
const CLANG: &str = "CMAKE_CXX_COMPILER_ID STREQUAL \"Clang\"";

/// One release of upstream's.
#[derive(Debug)]
pub struct Upstream {
    /// Tag of the release: `v2.6.0`.
    pub tag: String,
    /// The commit that it leads to.
    pub commit: String,
    /// When that was committed, seconds since 1970.
    pub time: i64,
    /// Its PEP 517 backend.
    pub backend: Backend,
    /// What the backend is called there.
    pub backend_name: String,
    /// `build-system.requires` of pyproject.toml.
    pub requires: Vec<String>,
    /// Pythons that its classifiers name: `3.12`.
    pub pythons: Vec<String>,
    /// What CMake calls the project.
    pub project: String,
    /// The oldest CMake that its list file takes.
    pub cmake: Option<String>,
    /// The oldest GCC that its list file takes.
    pub gcc: Option<String>,
    /// The oldest Clang that its list file takes: from 2.13 on it names one (pytorch#184770).
    pub clang: Option<String>,
    /// The C++ standard that its list file sets.
    pub standard: Option<String>,
    /// Its `USE_*` and `BUILD_*` switches.
    pub switches: BTreeSet<String>,
    /// Its submodules, without theirs.
    pub submodules: Vec<Submodule>,
}

#[derive(Deserialize, Default)]
struct Pyproject {
    #[serde(rename = "build-system", default)]
    build_system: BuildSystem,
    #[serde(default)]
    project: Project,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", default)]
struct BuildSystem {
    requires: Vec<String>,
    build_backend: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Project {
    name: String,
    classifiers: Vec<String>,
}

/// Reads the tree that the tag of `version` leads to, in the repository at `url`.
///
/// # Errors
/// Bad input: no such tag, no PyTorch, no libuv store. The world: the repository does not answer.
pub fn read(url: &str, version: &Version, mirrors: &Path, events: &dyn Sink) -> Result<Upstream> {
    let tag = format!("v{version}");
    let tags = tags(url).doing(|| "asking for upstream's tags".into())?;
    let commit = tags.get(&tag).cloned().ok_or_else(|| no_tag(url, &tag, &tags))?;
    let tree = Snapshot::fetch(url, &commit, mirrors, events)?;
    let text = |path: &str| tree.text(path);
    let list = text("CMakeLists.txt")?.ok_or_else(|| not_pytorch(url, &tag, "it has no CMakeLists.txt"))?;
    let pyproject = text("pyproject.toml")?.ok_or_else(|| not_pytorch(url, &tag, "it has no pyproject.toml"))?;
    let pyproject: Pyproject = toml::from_str(&pyproject)
        .map_err(|e| not_pytorch(url, &tag, &format!("its pyproject.toml cannot be read: {}", e.message())))?;
    let project = project(&list, &pyproject.project.name)
        .ok_or_else(|| not_pytorch(url, &tag, "its CMakeLists.txt begins no project"))?;
    if !project.eq_ignore_ascii_case("torch") {
        return Err(not_pytorch(url, &tag, &format!("its project is called '{project}'")));
    }
    if text(STORE)?.is_none() {
        return Err(no_store(version, &format!("the tree of {tag} has no {STORE}")));
    }
    Ok(Upstream {
        time: tree.time()?,
        backend: backend(&tag, &pyproject.build_system.build_backend)?,
        backend_name: pyproject.build_system.build_backend,
        requires: pyproject.build_system.requires,
        pythons: pythons(&pyproject.project.classifiers),
        cmake: after(&list, "cmake_minimum_required(VERSION"),
        gcc: oldest(&list, GCC),
        clang: oldest(&list, CLANG),
        standard: after(&list, "set(CMAKE_CXX_STANDARD"),
        switches: features::declared(&list),
        submodules: tree.submodules()?,
        project,
        tag,
        commit,
    })
}

fn no_tag(url: &str, tag: &str, tags: &BTreeMap<String, String>) -> Error {
    let e = Error::misuse("no-such-tag", format!("{url} has no tag {tag}"));
    let near: Vec<&str> = tags.keys().filter(|t| t.starts_with(&format!("{tag}-"))).map(String::as_str).collect();
    let newest = tags
        .keys()
        .filter_map(|t| Version::from_str(t.strip_prefix('v')?).ok())
        .filter(|v| !v.any_prerelease() && v.release().len() == 3)
        .max();
    match (&near[..], newest) {
        ([], Some(newest)) => e.next(format!("its newest release is {newest}")),
        ([], None) => e.next("it has no tags of releases: is it PyTorch's repository?"),
        (near, _) => e.next(format!("it has {}: that version is not released yet", near.join(", "))),
    }
}

fn not_pytorch(url: &str, tag: &str, why: &str) -> Error {
    Error::misuse("not-pytorch", format!("the tree of {tag} in {url} is no PyTorch that can be built here: {why}"))
        .next("name PyTorch's repository, or a mirror of it, with --git URL")
}

fn backend(tag: &str, name: &str) -> Result<Backend> {
    // The whole name: it stands in the recipe, and `scikit_build_core.setuptools.build_meta` is another one.
    match name {
        "setuptools.build_meta" | "setuptools.build_meta:__legacy__" => Ok(Backend::Setuptools),
        "scikit_build_core.build" => Ok(Backend::ScikitBuildCore),
        _ => Err(Error::misuse("unknown-backend", format!("pyproject.toml of {tag} names the build backend '{name}'"))
            .next("this program drives setuptools and scikit-build-core: it has to learn this one first")),
    }
}

/// Name of the first project of a list file; scikit-build-core hands on the one of pyproject.toml.
fn project(list: &str, in_pyproject: &str) -> Option<String> {
    let mut lines = list.lines().map(str::trim).filter(|l| !l.starts_with('#'));
    let first = lines.find_map(|l| arguments(l, "project"))?;
    // It may stand on a line after that.
    let mut words = std::iter::once(first).chain(lines).flat_map(|l| l.split([' ', '\t', ')', '"']));
    let name = words.find(|w| !w.is_empty())?;
    let given = name.contains("SKBUILD_PROJECT_NAME") && !in_pyproject.is_empty();
    Some(if given { in_pyproject } else { name }.to_owned())
}

/// What stands behind `command(` in a line that begins with it. Commands have no case.
fn arguments<'l>(line: &'l str, command: &str) -> Option<&'l str> {
    let name = line.get(..command.len()).filter(|name| name.eq_ignore_ascii_case(command))?;
    line[name.len()..].trim_start().strip_prefix('(')
}

/// The version number that follows `what`, perhaps on the next line; the lower one of a range (`3.27...4.0`).
fn after(text: &str, what: &str) -> Option<String> {
    let rest = text[text.find(what)? + what.len()..].trim_start();
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    let number = rest[..end].split("...").next()?.trim_end_matches('.');
    (!number.is_empty()).then(|| number.to_owned())
}

/// The version below which a list file takes no `compiler`, which is asked for on the same line.
fn oldest(list: &str, compiler: &str) -> Option<String> {
    list.lines().find(|l| l.contains(compiler) && l.contains("VERSION_LESS")).and_then(|l| after(l, "VERSION_LESS"))
}

/// `3.12` of `Programming Language :: Python :: 3.12`; each once, in order of version.
fn pythons(classifiers: &[String]) -> Vec<String> {
    let minors = classifiers.iter().filter_map(|c| c.strip_prefix("Programming Language :: Python :: 3."));
    let minors = minors.filter(|m| m.bytes().all(|b| b.is_ascii_digit())).filter_map(|m| m.parse().ok());
    minors.collect::<BTreeSet<u8>>().into_iter().map(|m| format!("3.{m}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_project_is_known_whoever_names_it() {
        assert_eq!(project("# project(x)\nproject(Torch CXX C)\n", "torch").unwrap(), "Torch");
        assert_eq!(project("project(${SKBUILD_PROJECT_NAME} VERSION 1)\n", "torch").unwrap(), "torch");
        assert_eq!(project("project(vision)\n", "torch").unwrap(), "vision");
        assert_eq!(project("add_library(x)\n", "torch"), None);
        // As CMake reads it: commands have no case, and lines end where they like.
        assert_eq!(project("Project (\n # x\n  ${SKBUILD_PROJECT_NAME}\n  CXX)\n", "torch").unwrap(), "torch");
        assert_eq!(project("project(\"Torch\" CXX)\n", "torch").unwrap(), "Torch");
        assert_eq!(project("projects(Torch)\nproject_x(Torch)\nproject(\n", "torch"), None);
    }

    #[test]
    fn a_backend_is_known_by_its_whole_name() {
        for (name, known) in [
            ("setuptools.build_meta", Backend::Setuptools),
            ("setuptools.build_meta:__legacy__", Backend::Setuptools),
            ("scikit_build_core.build", Backend::ScikitBuildCore),
        ] {
            assert_eq!(backend("v2.16.0", name).unwrap(), known);
        }
        for other in ["scikit_build_core.setuptools.build_meta", "setuptools.build_meta_x", ""] {
            assert_eq!(backend("v2.16.0", other).unwrap_err().code(), "unknown-backend", "{other}");
        }
    }

    #[test]
    fn pythons_are_those_of_the_classifiers_once_and_in_order() {
        let of = |minors: &[&str]| {
            pythons(&minors.iter().map(|m| format!("Programming Language :: Python :: {m}")).collect::<Vec<_>>())
        };
        assert_eq!(of(&["3 :: Only", "3.12", "3.9", "3.12", "3.10"]), ["3.9", "3.10", "3.12"]);
        assert_eq!(of(&["3", "3.", "3.x", "3.+12", "3.4294967295"]), Vec::<String>::new());
    }

    proptest::proptest! {
        #[test]
        fn no_list_file_makes_a_reader_panic(text in "[\\PC\n(]{0,120}") {
            let list = format!("project({text}\noption({text}");
            let _ = (project(&list, &text), after(&text, "("), features::declared(&list), pythons(&[text]));
        }
    }

    #[test]
    fn minima_are_read_from_the_list_file() {
        let list = "cmake_minimum_required(VERSION 3.27 FATAL_ERROR)\nset(CMAKE_CXX_STANDARD\n    20\n    CACHE STRING \"x\")\n\
                    if(CMAKE_COMPILER_IS_GNUCXX AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 11.3)\n";
        assert_eq!(after(list, "cmake_minimum_required(VERSION").as_deref(), Some("3.27"));
        assert_eq!(after(list, "set(CMAKE_CXX_STANDARD").as_deref(), Some("20"));
        assert_eq!(after(list, "VERSION_LESS").as_deref(), Some("11.3"));
        assert_eq!(after("set(X ON)", "VERSION_LESS"), None);
        assert_eq!(after("minimum(VERSION 3.27...4.1)", "VERSION").as_deref(), Some("3.27"));
        assert_eq!(after("minimum(VERSION ...4.1)", "VERSION"), None);
        // The line of pytorch#184770; what is newer than some version is no minimum.
        let line = |how: &str| format!("if({CLANG} AND CMAKE_CXX_COMPILER_VERSION {how})\n");
        let list = line("VERSION_GREATER_EQUAL 18") + &line("VERSION_LESS 16");
        assert_eq!(oldest(&list, CLANG).as_deref(), Some("16"));
        assert_eq!(oldest(&list, GCC), None);
    }
}
