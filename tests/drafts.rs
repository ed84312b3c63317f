//! `recipe new`: a recipe from what a git server and a package index say, and a clear word where one of them has nothing
//! to say.

use std::path::Path;
use std::process::Command;

use super::support::{Answer, Ran, Server, Workspace};

/// METADATA of PyPI's torch 2.12.1, for Linux on x86-64: its headers, as the index served them.
const REAL_METADATA: &str = include_str!("drafts/torch-2.12.1.METADATA");

fn git(dir: &Path, args: &[&str]) -> String {
    let identity = ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "init.defaultBranch=main"];
    let out = Command::new("git")
        .args(identity)
        .args(args)
        .current_dir(dir)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_COMMITTER_DATE", "2026-12-01T12:00:00Z")
        .env("GIT_AUTHOR_DATE", "2026-12-01T12:00:00Z")
        .output()
        .unwrap();
    assert!(out.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

const STORE: &str = "torch/csrc/distributed/c10d/TCPStoreLibUvBackend.cpp";

/// The list file of an upstream tree: what begins it, and how old a compiler may be.
fn list_file(project: &str, cmake: &str, gcc: &str, standard: &str, more: &str) -> String {
    format!(
        "cmake_minimum_required(VERSION {cmake} FATAL_ERROR)\n# project(old)\nproject({project})\n\
         set(CMAKE_CXX_STANDARD\n    {standard}\n    CACHE STRING \"x\")\n\
         if(CMAKE_COMPILER_IS_GNUCXX AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS {gcc})\n  message(FATAL_ERROR \"old\")\nendif()\n\
         option(USE_DISTRIBUTED \"x\" ON)\noption(USE_CUDA \"x\" ON)\n{more}"
    )
}

fn pyproject(backend: &str, requires: &[&str]) -> String {
    format!(
        "[build-system]\nrequires = {requires:?}\nbuild-backend = \"{backend}\"\n[project]\nname = \"torch\"\n\
         classifiers = [\"Programming Language :: Python :: 3 :: Only\", \"Programming Language :: Python :: 3.11\", \
         \"Programming Language :: Python :: 3.12\"]\n"
    )
}

/// A tree of which a recipe can be written.
fn good_tree() -> [(&'static str, String); 3] {
    [
        ("CMakeLists.txt", list_file("Torch CXX C", "3.27", "11.3", "20", "")),
        ("pyproject.toml", pyproject("setuptools.build_meta", &["setuptools"])),
        (STORE, "x".into()),
    ]
}

/// A repository `pytorch` with one release, and a submodule. Returns its URL and the tag's commit.
fn upstream(dir: &Path, tag: &str, files: &[(&str, String)]) -> (String, String) {
    let sub = dir.join("gloo");
    std::fs::create_dir_all(&sub).unwrap();
    git(&sub, &["init", "-q"]);
    std::fs::write(sub.join("gloo.h"), "x").unwrap();
    git(&sub, &["add", "."]);
    git(&sub, &["commit", "-qm", "gloo"]);
    let repo = dir.join("pytorch");
    std::fs::create_dir_all(&repo).unwrap();
    git(&repo, &["init", "-q"]);
    git(&repo, &["-c", "protocol.file.allow=always", "submodule", "--quiet", "add", "../gloo", "third_party/gloo"]);
    for (name, text) in files {
        let path = repo.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    git(&repo, &["add", "."]);
    git(&repo, &["commit", "-qm", "release"]);
    // Annotated, as upstream's are: the tag is an object of its own, and leads to the commit.
    git(&repo, &["tag", "-a", tag, "-m", tag]);
    (format!("file://{}", repo.display()), git(&repo, &["rev-parse", "HEAD"]))
}

/// A wheel that says of what commit it is, and what it asks for.
fn wheel(commit: &str) -> Vec<u8> {
    use std::io::Write;
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let version = format!("__version__ = '2.12.1+cu130'\ndebug = False\ngit_version = '{commit}'\n");
    for (name, text) in [
        ("torch/lib/libtorch_cpu.so", "x".repeat(300_000).as_str()),
        ("torch/version.py", &version),
        ("torch-2.12.1.dist-info/METADATA", REAL_METADATA),
    ] {
        zip.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(text.as_bytes()).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// A workspace with the recipes of this repository.
fn workspace() -> Workspace {
    let w = Workspace::new();
    for folder in ["recipes", "patches"] {
        for entry in walkdir::WalkDir::new(crate::support::root().join(folder)) {
            let entry = entry.unwrap();
            let to = w.path().join(entry.path().strip_prefix(crate::support::root()).unwrap());
            if entry.file_type().is_dir() {
                std::fs::create_dir_all(to).unwrap();
            } else {
                std::fs::copy(entry.path(), to).unwrap();
            }
        }
    }
    w
}

/// An index with the wheels of a version, as PyPI has those of 2.12.1.
fn index(version: &str, tags: &[&str], wheel: Option<Vec<u8>>) -> Server {
    let file = |tag: &&str| {
        format!(
            r#"{{"filename":"torch-{version}-{tag}.whl","url":"../../files/{tag}.whl","hashes":{{}},"upload-time":"2026-12-02T21:08:43.160075Z"}}"#
        )
    };
    let files: Vec<String> = tags.iter().map(file).collect();
    let page = format!(r#"{{"meta":{{"api-version":"1.1"}},"name":"torch","files":[{}]}}"#, files.join(","));
    let json = "application/vnd.pypi.simple.v1+json";
    let scikit = r#"{"meta":{"api-version":"1.1"},"name":"scikit-build-core","files":[
        {"filename":"scikit_build_core-1.1.1-py3-none-any.whl","url":"a","hashes":{}},
        {"filename":"scikit_build_core-1.4.0-py3-none-any.whl","url":"b","hashes":{}},
        {"filename":"scikit_build_core-1.6.0-py3-none-any.whl","url":"e","hashes":{},"yanked":true},
        {"filename":"scikit_build_core-2.0.0-py3-none-any.whl","url":"c","hashes":{}},
        {"filename":"scikit_build_core-1.5.0rc1-py3-none-any.whl","url":"d","hashes":{}}]}"#;
    Server::start([
        ("/simple/torch/", Answer::Typed(json, page.into_bytes())),
        ("/simple/scikit-build-core/", Answer::Typed(json, scikit.as_bytes().to_vec())),
        ("/files/cp311-cp311-manylinux_2_28_x86_64.whl.metadata", Answer::Ok(REAL_METADATA.as_bytes().to_vec())),
        ("/files/cp311-cp311-manylinux_2_28_x86_64.whl", wheel.map_or(Answer::Status(404), Answer::Ok)),
    ])
}

const TAGS: &[&str] = &[
    "cp311-cp311-manylinux_2_28_x86_64",
    "cp311-cp311-manylinux_2_28_aarch64",
    "cp311-cp311-win_amd64",
    "cp312-cp312-manylinux_2_28_x86_64",
    "cp313-cp313-manylinux_2_28_x86_64",
    "cp313-cp313t-manylinux_2_28_x86_64",
    "cp314-cp314-manylinux_2_28_x86_64",
    "cp314-cp314t-manylinux_2_28_x86_64",
    "cp315-cp315-manylinux_2_28_x86_64",
    "cp316-cp316-manylinux_2_28_x86_64",
];

fn new(w: &Workspace, url: &str, index: &Server, args: &[&str]) -> Ran {
    let mut all = vec!["recipe", "new", "--quiet", "--git", url];
    all.extend(args);
    let mut command = w.xtask(&all);
    command.env("PIP_INDEX_URL", format!("{}/simple", index.url));
    Ran::of(&mut command, w.path())
}

fn read(w: &Workspace, name: &str) -> String {
    std::fs::read_to_string(w.path().join(format!("recipes/{name}.toml"))).unwrap()
}

#[test]
fn a_tree_of_the_newest_kind_becomes_a_recipe_that_says_what_it_does_not_know() {
    let dir = tempfile::tempdir().unwrap();
    let more = "cmake_dependent_option(\n  USE_TIME_TRAVEL \"x\" ON \"USE_CUDA\" OFF)\noption(USE_MKLDNN \"x\" ON)\n\
                if(CMAKE_CXX_COMPILER_ID STREQUAL \"Clang\" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 17)\nendif()\n";
    let (url, commit) = upstream(
        dir.path(),
        "v2.16.0",
        &[
            ("CMakeLists.txt", list_file("${SKBUILD_PROJECT_NAME} LANGUAGES CXX C", "3.27", "13.1", "23", more)),
            (
                "pyproject.toml",
                pyproject(
                    "scikit_build_core.build",
                    &["scikit-build-core>=1.3,<2", "packaging>=24.2", "six", "requests", "numpy", "pyyaml"],
                ),
            ),
            (STORE, "x".into()),
        ],
    );
    let w = workspace();
    let index = index("2.16.0", TAGS, Some(wheel(&commit)));
    let ran = new(&w, &url, &index, &["2.16.0"]).exits(0);
    let text = read(&w, "torch-2.16.0-cpu");
    let shown = text.replace(&commit, "[COMMIT]").replace(dir.path().to_str().unwrap(), "[UPSTREAM]");
    insta::assert_snapshot!("newest_kind", shown);
    assert!(ran.stdout.contains("next: cargo xtask lock --recipe torch-2.16.0-cpu"), "{}", ran.stdout);

    // Every comment that leaves something open is told to whoever ran it, and the other way round.
    let told = ran.stdout.lines().filter(|l| l.starts_with("  - ")).count();
    assert_eq!(text.matches("NOT FOUND OUT:").count(), told);
    assert!(told >= 5, "{}", ran.stdout);

    // It is a recipe, a draft like any other.
    let loaded = torchmill::recipe::Workspace { root: w.path().to_owned() }.load("torch-2.16.0-cpu").unwrap();
    assert_eq!(loaded.torch.commit, commit);
    assert_eq!(loaded.torch.backend, torchmill::recipe::Backend::ScikitBuildCore);
    assert_eq!(loaded.python.versions, ["3.11", "3.12", "3.13", "3.14", "3.15", "3.16"]);
    assert_eq!(loaded.torch.epoch, 1_796_169_600);
    assert!(loaded.python.build.contains(&"scikit-build-core==1.4.0".to_owned()), "{:?}", loaded.python.build);
    assert!(loaded.torch.tch.is_none() && loaded.torch.status.is_draft());
    assert_eq!(loaded.toolchain.gcc.as_deref(), Some(">=13.1"));
    assert_eq!(loaded.toolchain.clang.as_deref(), Some(">=17"));
    assert_eq!(loaded.features.get("USE_XNNPACK"), Some(&false));
    let list = w.run(&["recipe", "list"]).exits(0).stdout;
    assert!(list.lines().any(|l| l.starts_with("torch-2.16.0-cpu ") && l.contains("draft")), "{list}");

    // It is not written over.
    new(&w, &url, &index, &["2.16.0"]).exits(2).says("is there already").says("remove it to have it written anew");
    let built = new(&w, &url, &index, &["2.12.1"]).exits(2);
    built
        .says("torch-2.12.1-cpu.toml is there already")
        .says("use it: cargo xtask build-torch --recipe torch-2.12.1-cpu");
    assert_eq!(read(&w, "torch-2.16.0-cpu"), text);
}

#[test]
fn trees_of_the_older_kinds_are_read_too() {
    for (tag, project, cmake, gcc, standard, backend) in [
        ("2.7.0", "Torch CXX C", "3.18", "9.3", "17", "setuptools.build_meta:__legacy__"),
        ("2.12.0", "Torch CXX C", "3.27", "11.3", "20", "setuptools.build_meta"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (url, commit) = upstream(
            dir.path(),
            &format!("v{tag}"),
            &[
                ("CMakeLists.txt", list_file(project, cmake, gcc, standard, "")),
                ("pyproject.toml", pyproject(backend, &["setuptools>=70.1,<82", "cmake>=3.18", "ninja"])),
                (STORE, "x".into()),
            ],
        );
        let w = workspace();
        // A wheel that nobody can read, without METADATA beside it: only its name is known.
        let index = index(tag, &["cp311-cp311-manylinux1_x86_64"], None);
        let ran = new(&w, &url, &index, &[tag]).exits(0);
        assert!(ran.stderr.contains("manylinux1_x86_64.whl was not read"), "{}", ran.stderr);
        let recipe =
            torchmill::recipe::Workspace { root: w.path().to_owned() }.load(&format!("torch-{tag}-cpu")).unwrap();
        assert_eq!(
            (recipe.torch.commit.as_str(), recipe.torch.backend),
            (commit.as_str(), torchmill::recipe::Backend::Setuptools)
        );
        assert_eq!(recipe.toolchain.gcc, Some(format!(">={gcc}")));
        assert_eq!(recipe.python.versions, ["3.11"]);
        let text = read(&w, &format!("torch-{tag}-cpu"));
        assert!(text.contains("Submodules of its tree (1), which come with it: third_party/gloo."), "{text}");
        assert!(text.contains("their pins meet what pyproject.toml asks for"), "{text}");
        assert_eq!(
            recipe.python.build,
            torchmill::recipe::Workspace { root: w.path().to_owned() }.load("torch-2.8.0-cpu").unwrap().python.build
        );
    }
}

#[test]
fn the_cuda_of_the_real_wheel_of_2_12_1_becomes_a_recipe() {
    let dir = tempfile::tempdir().unwrap();
    let (url, _) = upstream(
        dir.path(),
        "v2.12.0",
        &[
            ("CMakeLists.txt", list_file("Torch CXX C", "3.27", "11.3", "20", "")),
            ("pyproject.toml", pyproject("setuptools.build_meta", &["setuptools<82"])),
            (STORE, "x".into()),
        ],
    );
    let w = workspace();
    // The wheel is of another commit than the tag, as 2.6.0's was.
    let other = "2236df1770800ffea5697b11b0bb0d910b2e59e1";
    let (index, beside) = (index("2.12.0", TAGS, Some(wheel(other))), index("2.12.0", TAGS, None));
    let ran = new(&w, &url, &index, &["2.12.0", "--cuda", "--json"]).exits(0);
    let json: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(json["written"]["recipes"], serde_json::json!(["torch-2.12.0-cpu", "torch-2.12.0-cu130"]));
    assert!(json["written"]["open"].as_array().unwrap().len() > 5);
    let told = json["written"]["open"].as_array().unwrap().iter().any(|o| o.as_str().unwrap().contains(other));
    assert!(told, "{json}");
    insta::assert_snapshot!("cuda", read(&w, "torch-2.12.0-cu130"));
    let recipe = torchmill::recipe::Workspace { root: w.path().to_owned() }.load("torch-2.12.0-cu130").unwrap();
    let cuda = recipe.cuda.as_ref().unwrap();
    assert_eq!(cuda.version, "13.0");
    let packages: Vec<(String, String)> = cuda.packages().collect();
    let packages: Vec<(&str, &str)> =
        packages.iter().map(|(name, version)| (name.as_str(), version.as_str())).collect();
    assert!(cuda.requires.iter().any(|r| r.starts_with("cuda-toolkit[cudart,") && r.contains("==13.0.2")), "{cuda:?}");
    for pinned in [("nvidia-cudnn-cu13", "9.20.0.48"), ("nvidia-nccl-cu13", "2.29.7"), ("triton", "3.7.1")] {
        assert!(packages.contains(&pinned), "{packages:?}");
    }
    // Stock leaves a choice of cuBLAS: so does the wheel that is built of this.
    let cublas = "nvidia-cublas<=13.1.1.3,>=13.1.0.3; platform_system == \"Linux\"";
    assert!(cuda.requires.iter().any(|r| r == cublas), "{cuda:?}");
    assert_eq!(recipe.features.get("USE_SYSTEM_NCCL"), Some(&true));
    // A second time only what is missing is written; here the wheel cannot be read, but the METADATA beside it.
    std::fs::remove_file(w.path().join("recipes/torch-2.12.0-cu130.toml")).unwrap();
    let cpu = read(&w, "torch-2.12.0-cpu");
    let ran = new(&w, &url, &beside, &["2.12.0", "--cuda", "--json"]).exits(0);
    let json: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(json["written"]["recipes"], serde_json::json!(["torch-2.12.0-cu130"]));
    assert_eq!(read(&w, "torch-2.12.0-cpu"), cpu);
}

#[test]
fn what_cannot_become_a_recipe_is_told_and_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let good = good_tree();
    let with = |name: &str, at: &str, text: Option<&str>| {
        let mut files: Vec<(&str, String)> = good.to_vec();
        match text {
            Some(text) => files.iter_mut().find(|(n, _)| *n == at).unwrap().1 = text.to_owned(),
            None => files.retain(|(n, _)| *n != at),
        }
        let place = dir.path().join(name);
        std::fs::create_dir_all(&place).unwrap();
        upstream(&place, "v2.16.0", &files).0
    };
    let w = workspace();
    let before: Vec<_> = std::fs::read_dir(w.path().join("recipes")).unwrap().map(|e| e.unwrap().file_name()).collect();
    let index = index("2.16.0", TAGS, None);
    let good_url = with("good", STORE, Some("x"));
    let told = |url: &str, args: &[&str], code: &str, what: &str| {
        let mut args = args.to_vec();
        args.push("--json");
        let ran = new(&w, url, &index, &args).exits(2);
        let json: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(json["error"]["code"], code, "{json}");
        assert!(ran.stderr.contains(what), "no '{what}' in {}", ran.stderr);
    };
    told(&good_url, &["2.1.0"], "no-libuv-store", "2.2.0 is the first that has it");
    told(&good_url, &["2.16"], "version", "three numbers");
    told(&good_url, &["2.16.0rc1"], "version", "no release");
    told(&good_url, &["latest"], "version", "no version");
    told(&good_url, &["2.17.0", "--without-wheel"], "no-such-tag", "its newest release is 2.16.0");
    told(&good_url, &["2.17.0"], "no-stock-wheel", "no wheel of torch 2.17.0");
    told(&with("no-store", STORE, None), &["2.16.0"], "no-libuv-store", STORE);
    let vision = list_file("torchvision", "3.27", "11.3", "20", "");
    told(
        &with("vision", "CMakeLists.txt", Some(&vision)),
        &["2.16.0"],
        "not-pytorch",
        "its project is called 'torchvision'",
    );
    told(&with("no-list", "CMakeLists.txt", None), &["2.16.0"], "not-pytorch", "it has no CMakeLists.txt");
    told(&with("no-pyproject", "pyproject.toml", None), &["2.16.0"], "not-pytorch", "it has no pyproject.toml");
    let poetry = pyproject("poetry.core.masonry.api", &[]);
    told(&with("poetry", "pyproject.toml", Some(&poetry)), &["2.16.0"], "unknown-backend", "poetry.core.masonry.api");
    // A name that would go on in the recipe's next line.
    let more = pyproject("setuptools.build_meta\\nlocal = 'theirs'", &[]);
    told(&with("more", "pyproject.toml", Some(&more)), &["2.16.0"], "unknown-backend", "setuptools.build_meta");
    told("https://me:secret@example.org/x", &["2.16.0"], "git-url", "a name or password in it");
    told("ssh://git@example.org/x", &["2.16.0"], "git-url", "no URL of https or file");
    // A repository that is not there is the world's fault.
    new(&w, "file:///no/such/place", &index, &["2.16.0"]).exits(3);
    let mut after: Vec<_> =
        std::fs::read_dir(w.path().join("recipes")).unwrap().map(|e| e.unwrap().file_name()).collect();
    after.sort();
    let mut before = before;
    before.sort();
    assert_eq!(before, after);
}

#[test]
fn a_version_that_the_index_does_not_have_is_written_from_the_tree_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (url, _) = upstream(dir.path(), "v2.16.0", &good_tree());
    let w = workspace();
    // A wheel for Windows is none for Linux.
    let index = index("2.16.0", &["cp311-cp311-win_amd64"], None);
    new(&w, &url, &index, &["2.16.0"]).exits(2).says("1 wheels of torch 2.16.0, and none for Linux");
    new(&w, &url, &index, &["2.16.0", "--without-wheel"]).exits(0);
    let text = read(&w, "torch-2.16.0-cpu");
    assert!(text.contains("NOT FOUND OUT: the day of the release: 2026-12-01 is the day of the commit"), "{text}");
    assert!(text.contains("NOT FOUND OUT: for which Pythons the stock wheels are"), "{text}");
    let recipe = torchmill::recipe::Workspace { root: w.path().to_owned() }.load("torch-2.16.0-cpu").unwrap();
    assert_eq!(recipe.python.versions, ["3.11", "3.12"]);
}

#[test]
fn what_a_draft_is_near_to_is_taken_over_whole() {
    let dir = tempfile::tempdir().unwrap();
    // What one line takes, another excludes.
    let requires = ["scikit-build-core>=1.3", "scikit-build-core<2", "packaging>=24.2"];
    let (url, _) = upstream(
        dir.path(),
        "v2.16.0",
        &[
            ("CMakeLists.txt", list_file("${SKBUILD_PROJECT_NAME}", "3.27...4.1", "11.3", "20", "")),
            ("pyproject.toml", pyproject("scikit_build_core.build", &requires)),
            (STORE, "x".into()),
        ],
    );
    git(&dir.path().join("pytorch"), &["tag", "-a", "v2.16.1", "-m", "v2.16.1"]);
    let (w, index) = (workspace(), index("2.16.0", &[], None));
    let loaded = |version: &str| {
        new(&w, &url, &index, &[version, "--without-wheel"]).exits(0);
        torchmill::recipe::Workspace { root: w.path().to_owned() }.load(&format!("torch-{version}-cpu")).unwrap()
    };
    let first = loaded("2.16.0");
    assert!(first.python.build.contains(&"scikit-build-core==1.4.0".to_owned()), "{:?}", first.python.build);
    let text = read(&w, "torch-2.16.0-cpu");
    assert!(text.contains("CMake 3.27."), "{text}");

    // Somebody works on it; then comes the next version, whose nearest recipe it is.
    let own = "\n[libuv]\nversion = \"1.53.0\"\nsource = \"uv\"\n[limits]\ndisk = 40000\n\
               [toolchain]\ngcc = \">=10, <15\"\ntried = [\"gcc 12.2\"]\n\
               [[source]]\nname = \"uv\"\ncoordinates = [\"file:uv.tar\"]\n\
               into = [{ prefix = \"x\", strip = 1 }]\nlicense = \"MIT\"\n\
               [[patch]]\nfile = \"pytorch-2.12.1/flatbuffers-23.5.26.patch\"\nreason = \"r\"\n";
    w.write("recipes/torch-2.16.0-cpu.toml", text + own);
    let second = loaded("2.16.1");
    assert_eq!(second.python.build, first.python.build);
    assert_eq!((second.libuv.version.as_str(), second.libuv.source.as_str()), ("1.53.0", "uv"));
    assert!(second.source.iter().any(|s| s.name == "uv" && s.into.len() == 1), "{:?}", second.source);
    assert_eq!(second.limits.disk, 40_000 << 20);
    assert_eq!(second.toolchain.gcc.as_deref(), Some(">=11.3, <15"));
    // What was made for another version's files is told, and not taken over; nor is what that one was built with.
    assert!(second.patch.is_empty() && second.toolchain.tried.is_empty(), "{second:?}");
    let text = read(&w, "torch-2.16.1-cpu");
    for part in [
        "The build's packages are torch-2.16.0-cpu's: their pins meet what pyproject.toml asks for.",
        "NOT FOUND OUT: whether the patches of torch-2.16.0-cpu are needed here too",
    ] {
        assert!(text.contains(part), "no '{part}' in {text}");
    }
}

#[test]
fn a_tree_that_names_no_pythons_and_writes_to_terminals_becomes_a_recipe_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    // Up to 2.7 there is no table [project].
    let pyproject = "[build-system]\nrequires = [\"setuptools\", \"x\\u001b[2J\"]\n\
                     build-backend = \"setuptools.build_meta:__legacy__\"\n";
    let (url, _) = upstream(
        dir.path(),
        "v2.5.1",
        &[
            ("CMakeLists.txt", list_file("Torch CXX C", "3.18", "9.3", "17", "")),
            ("pyproject.toml", pyproject.into()),
            (STORE, "x".into()),
        ],
    );
    let (w, index) = (workspace(), index("2.5.1", &[], None));
    let ran = new(&w, &url, &index, &["2.5.1", "--without-wheel"]).exits(0);
    let recipes = torchmill::recipe::Workspace { root: w.path().to_owned() };
    let (own, near) = (recipes.load("torch-2.5.1-cpu").unwrap(), recipes.load("torch-2.7.1-cpu").unwrap());
    assert_eq!((own.python.versions, own.python.requires), (near.python.versions, near.python.requires));
    let text = read(&w, "torch-2.5.1-cpu");
    for said in [&text, &ran.stdout] {
        assert!(said.contains("for which Pythons it is: these are those of torch-2.7.1-cpu"), "{said}");
        assert!(said.contains("what meets 'x\\u{1b}[2J' of upstream") && !said.contains('\u{1b}'), "{said:?}");
    }
}

#[test]
fn a_tree_that_names_more_submodules_than_are_read_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let module = |i: u32| format!("[submodule \"{i}\"]\n\tpath = third_party/{i}\n\turl = ../{i}\n");
    let modules: String = (0..1001).map(module).collect();
    let (url, _) = upstream(dir.path(), "v2.16.0", &[&good_tree()[..], &[(".gitmodules", modules)]].concat());
    let (w, index) = (workspace(), index("2.16.0", &[], None));
    new(&w, &url, &index, &["2.16.0", "--without-wheel"]).exits(2).says(".gitmodules names 1001 submodules");
    assert!(!w.path().join("recipes/torch-2.16.0-cpu.toml").exists());
}

#[test]
fn tags_and_tree_are_read_over_http_too() {
    let dir = tempfile::tempdir().unwrap();
    let (_, commit) = upstream(
        dir.path(),
        "v2.16.0",
        &[
            ("CMakeLists.txt", list_file("Torch CXX C", "3.27", "12.2", "20", "")),
            ("pyproject.toml", pyproject("setuptools.build_meta", &["setuptools"])),
            (STORE, "x".into()),
        ],
    );
    let server = crate::sources::GitServer::start(dir.path());
    let url = format!("{}/pytorch/.git", server.url);
    let (w, index) = (workspace(), index("2.16.0", &[], None));
    let asked = |version: &str| new(&w, &url, &index, &[version, "--without-wheel"]);
    asked("2.17.0").exits(2).says("its newest release is 2.16.0");
    asked("2.16.0").exits(0);
    let recipe = torchmill::recipe::Workspace { root: w.path().to_owned() }.load("torch-2.16.0-cpu").unwrap();
    assert_eq!((recipe.torch.commit.as_str(), recipe.toolchain.gcc.as_deref()), (commit.as_str(), Some(">=12.2")));
    let (text, coordinate) = (read(&w, "torch-2.16.0-cpu"), format!("\"git+{url}#{commit}\""));
    for part in [coordinate.as_str(), "come with it: third_party/gloo."] {
        assert!(text.contains(part), "no '{part}' in {text}");
    }
}
