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
        gcc: list.lines().find(|l| l.contains("CMAKE_COMPILER_IS_GNUCXX")).and_then(|l| after(l, "VERSION_LESS")),
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
    match name {
        n if n.starts_with("setuptools.build_meta") => Ok(Backend::Setuptools),
        n if n.starts_with("scikit_build_core.") => Ok(Backend::ScikitBuildCore),
        _ => Err(Error::misuse("unknown-backend", format!("pyproject.toml of {tag} names the build backend '{name}'"))
            .next("this program drives setuptools and scikit-build-core: it has to learn this one first")),
    }
}

/// Name of the first project of a list file; scikit-build-core hands on the one of pyproject.toml.
fn project(list: &str, in_pyproject: &str) -> Option<String> {
    let line = list.lines().map(str::trim).find(|l| l.starts_with("project("))?;
    let name = line["project(".len()..].split([' ', ')']).next()?;
    let given = name.contains("SKBUILD_PROJECT_NAME") && !in_pyproject.is_empty();
    Some(if given { in_pyproject } else { name }.to_owned())
}

/// The version number that follows `what`, perhaps on the next line.
fn after(text: &str, what: &str) -> Option<String> {
    let rest = text[text.find(what)? + what.len()..].trim_start();
    let number: String = rest.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
    (!number.is_empty()).then_some(number)
}

/// `3.12` of `Programming Language :: Python :: 3.12`.
fn pythons(classifiers: &[String]) -> Vec<String> {
    let minors = classifiers.iter().filter_map(|c| c.strip_prefix("Programming Language :: Python :: 3."));
    minors.filter(|m| m.bytes().all(|b| b.is_ascii_digit())).map(|m| format!("3.{m}")).collect()
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
    }
}
