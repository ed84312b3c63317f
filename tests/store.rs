//! The store is judged when it is used: whatever changed in it is noticed, named, set aside, and made or
//! fetched again; what killed runs left goes.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use super::pipeline::artifact;
use super::support::standin::{files, fresh_files, work_folder, workspace};
use super::support::{Ran, Workspace, locked, sha256, shared_store};
use torchmill::error::Exit;
use torchmill::store::{Extent, Key, KeyBuilder, Store};

/// A workspace whose store is its own, with copies of the downloads.
fn own() -> Workspace {
    let mut w = workspace(&files());
    w.run(&["fetch", "--recipe", "standin"]).exits(0);
    w.store = w.path().join("own-store");
    let from = shared_store().join("v1/blobs");
    for entry in below(&from) {
        let to = w.store.join("v1/blobs").join(entry.strip_prefix(&from).unwrap());
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(&entry, &to).unwrap();
    }
    w
}

fn below(dir: &Path) -> Vec<PathBuf> {
    let files = walkdir::WalkDir::new(dir).sort_by_file_name().into_iter().flatten();
    files.filter(|e| e.file_type().is_file()).map(walkdir::DirEntry::into_path).collect()
}

/// Another byte in the middle, the same size, the same time.
fn change(path: &Path) {
    // A clock's tick passes between what is known and what is changed.
    std::thread::sleep(Duration::from_millis(20));
    let modified = std::fs::metadata(path).unwrap().modified().unwrap();
    let mut bytes = std::fs::read(path).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
    std::fs::File::options().write(true).open(path).unwrap().set_modified(modified).unwrap();
}

/// The digest of the stand-in's download, and its place in the store.
fn download(w: &Workspace) -> (String, PathBuf) {
    let digest = sha256(&std::fs::read(w.path().join("standin.tar")).unwrap());
    let blob = w.store.join("v1/blobs").join(&digest[..2]).join(&digest);
    (digest, blob)
}

/// A result of the stage "s" with these files: its key, and its folder.
fn result(store: &Store, files: &[(&str, &str)]) -> (Key, PathBuf) {
    let key = KeyBuilder::new("s", 1).finish();
    let pending = store.begin("s", &key).unwrap();
    for (name, text) in files {
        let path = pending.out().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    (key, pending.finish(&serde_json::json!({ "made": 1 })).unwrap())
}

fn tree(w: &Workspace) -> Ran {
    w.run(&["tree", "--recipe", "standin"])
}

fn folder(w: &Workspace, ran: &Ran) -> PathBuf {
    PathBuf::from(ran.stdout.trim().replace("[DIR]", w.path().to_str().unwrap()))
}

#[test]
fn a_download_that_was_changed_is_named_set_aside_and_fetched_again() {
    let w = own();
    let (digest, blob) = download(&w);
    change(&blob);
    let ran = tree(&w).exits(0).says("has not the digest that it had when it came in").says("set aside as");
    assert_eq!(sha256(&std::fs::read(&blob).unwrap()), digest, "{ran:?}");
    assert_eq!(below(&w.store.join("v1/quarantine")).len(), 1);
    // Where it cannot be had again, nothing is made of it.
    change(&blob);
    std::fs::remove_dir_all(w.store.join("v1/stages")).unwrap();
    std::fs::rename(w.path().join("standin.tar"), w.path().join("gone.tar")).unwrap();
    tree(&w).exits(3).says("has not the digest that it had when it came in");
}

#[test]
fn a_result_that_was_changed_is_made_again_whatever_changed_in_it() {
    let w = own();
    let made = folder(&w, &tree(&w).exits(0));
    let right = std::fs::read(made.join("setup.py")).unwrap();
    let stage = made.parent().unwrap().to_owned();
    type Harm = fn(&Path);
    let harms: [(&str, Harm, &str); 8] = [
        ("a byte", |out| change(&out.join("setup.py")), "'setup.py' was changed"),
        (
            "a file more",
            |out| std::fs::write(out.join("sitecustomize.py"), "x").unwrap(),
            "'sitecustomize.py' was put there",
        ),
        ("a file less", |out| std::fs::remove_file(out.join("setup.py")).unwrap(), "'setup.py' is gone"),
        (
            "an emptied record",
            |out| std::fs::write(out.with_file_name("stage.json"), "").unwrap(),
            "stage.json is no record",
        ),
        (
            "a record of nothing",
            |out| std::fs::write(out.with_file_name("stage.json"), "{}").unwrap(),
            "stage.json is no record",
        ),
        (
            "a record that is made to look like one of an earlier version",
            |out| {
                std::fs::write(out.with_file_name("stage.json"), "{\"made\": 1}").unwrap();
                change(&out.join("setup.py"));
            },
            "stage.json is no record",
        ),
        (
            "a byte of the record",
            |out| {
                let path = out.with_file_name("stage.json");
                let text = std::fs::read_to_string(&path).unwrap();
                let at = text.find("\"record\"").unwrap() + text[text.find("\"record\"").unwrap()..].find('{').unwrap();
                std::fs::write(path, format!("{}\"more\": 1, {}", &text[..=at], &text[at + 1..]).replace(", }", "}"))
                    .unwrap();
            },
            "the record in stage.json was changed",
        ),
        (
            "another list",
            |out| std::fs::write(out.with_file_name("files.json"), "{\"files\":{}}").unwrap(),
            "files.json was changed",
        ),
    ];
    for (what, harm, says) in harms {
        harm(&made);
        // The tree's own check of times comes first where a time moved.
        let epoch = std::fs::metadata(made.join("LICENSE")).unwrap().modified().unwrap();
        for file in below(&made) {
            std::fs::File::options().write(true).open(file).unwrap().set_modified(epoch).unwrap();
        }
        let ran = tree(&w).exits(0);
        assert!(ran.stderr.contains(says) && ran.stderr.contains("set aside as"), "{what}: {}", ran.stderr);
        assert_eq!(std::fs::read(made.join("setup.py")).unwrap(), right, "{what}");
        assert!(!made.join("sitecustomize.py").exists() && stage.join("files.json").exists());
        let again = tree(&w).exits(0);
        assert!(!again.stderr.contains("set aside"), "{what}: {}", again.stderr);
    }
}

#[test]
fn what_python_compiled_beside_a_result_is_no_change_and_does_not_stay() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(Some(dir.path())).unwrap();
    let (key, out) = result(&store, &[("a.py", "x = 1\n")]);
    std::fs::create_dir(out.join("__pycache__")).unwrap();
    std::fs::write(out.join("__pycache__/a.cpython-311.pyc"), "planted").unwrap();
    assert_eq!(store.finished("s", &key).unwrap(), Some(out.clone()));
    assert!(below(&out.join("__pycache__")).is_empty());
    assert!(store.take_found().is_empty());
}

/// What comes of `late`, which begins while another run has judged what is called `name` and is at it: that run does
/// `meanwhile` before it lets go.
fn beside<T: Send>(store: &Store, name: &str, late: impl FnOnce() -> T + Send, meanwhile: impl FnOnce()) -> T {
    let other = locked(&store.root().join("locks").join(format!("aside-{name}")));
    std::thread::scope(|scope| {
        let late = scope.spawn(late);
        std::thread::sleep(Duration::from_millis(300));
        meanwhile();
        drop(other);
        late.join().unwrap()
    })
}

#[test]
fn who_judges_at_the_same_time_moves_nothing_that_was_made_anew_since() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(Some(dir.path())).unwrap();
    let made = || result(&store, &[("a", "1")]);
    let (key, out) = made();
    let name = format!("s-{}", key.short());
    let anew = || {
        std::fs::remove_dir_all(out.parent().unwrap()).unwrap();
        made();
    };
    // A result that was changed, and one that was found to be of no use.
    change(&out.join("a"));
    assert_eq!(beside(&store, &name, || store.finished("s", &key).unwrap(), anew), Some(out.clone()));
    let useless = || std::fs::read_to_string(out.join("a")).unwrap() != "1";
    change(&out.join("a"));
    assert!(!beside(&store, &name, || store.forget_if("s", &key, useless).unwrap(), anew));
    assert_eq!(std::fs::read_to_string(out.join("a")).unwrap(), "1");
    // One of an earlier version, which is given its digests: the list is there before the record names it.
    let record = out.with_file_name("stage.json");
    let right = std::fs::read(&record).unwrap();
    std::fs::write(&record, "{\"made\": 1}").unwrap();
    let named = || std::fs::write(&record, &right).unwrap();
    assert_eq!(beside(&store, &name, || store.finished("s", &key).unwrap(), named), Some(out.clone()));
    // A download.
    let digest = sha256(b"right");
    let blob = store.root().join("blobs").join(&digest[..2]).join(&digest);
    std::fs::create_dir_all(blob.parent().unwrap()).unwrap();
    std::fs::write(&blob, "wrong").unwrap();
    let fetched = || std::fs::write(&blob, "right").unwrap();
    let name = format!("{}-changed", &digest[..16]);
    assert!(beside(&store, &name, || store.blob(&digest, 5).unwrap(), fetched).is_some());
    assert_eq!(store.take_found(), Vec::<String>::new());
    assert!(!store.root().join("quarantine").exists());
    // What nobody made anew is moved, and what is of no use goes.
    change(&out.join("a"));
    assert!(store.forget_if("s", &key, useless).unwrap() && !out.exists());
    assert!(store.forget_if("s", &key, useless).unwrap());
    std::fs::write(&blob, "wrong").unwrap();
    assert!(store.blob(&digest, 5).unwrap().is_none() && !blob.exists());
    assert!(store.take_found()[0].contains("set aside as"));
}

#[test]
fn what_a_later_version_says_of_a_result_as_well_is_no_change() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(Some(dir.path())).unwrap();
    let (key, out) = result(&store, &[("a", "1")]);
    let record = out.with_file_name("stage.json");
    let mut said: serde_json::Value = serde_json::from_slice(&std::fs::read(&record).unwrap()).unwrap();
    said["of_a_later_version"] = true.into();
    std::fs::write(&record, said.to_string()).unwrap();
    assert_eq!(store.finished("s", &key).unwrap(), Some(out.clone()));
    assert_eq!(store.record::<serde_json::Value>("s", &key).unwrap().unwrap()["made"], 1);
    // It is judged all the same.
    change(&out.join("a"));
    assert_eq!(store.finished("s", &key).unwrap(), None);
}

#[test]
#[cfg(target_os = "linux")]
fn what_cannot_be_read_is_not_used_and_stays_where_it_is() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(Some(dir.path())).unwrap();
    let (key, out) = result(&store, &[("a", "1")]);
    let read = || store.finished("s", &key);
    let refused = |what: &Path, e: torchmill::Error| {
        assert_eq!(e.exit(), Exit::World, "{e}");
        assert!(e.context().iter().any(|doing| *doing == format!("judging {}", what.display())), "{e}");
        assert!(e.next_steps().iter().any(|step| step.contains("run the same command again")), "{e}");
        assert_eq!(store.take_found(), Vec::<String>::new());
        assert!(out.join("a").exists() && !store.root().join("quarantine").exists());
    };
    // The memory of a process begins where nothing is: whoever reads it from there, root as well, gets EIO, as of a disk
    // that fails.
    for name in ["stage.json", "files.json"] {
        let path = out.with_file_name(name);
        let right = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/proc/self/mem", &path).unwrap();
        refused(out.parent().unwrap(), read().unwrap_err());
        if name == "stage.json" {
            assert_eq!(store.record::<serde_json::Value>("s", &key).unwrap_err().exit(), Exit::World);
        }
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, right).unwrap();
        assert_eq!(read().unwrap(), Some(out.clone()));
    }
    let digest = sha256(b"right");
    let blob = store.root().join("blobs").join(&digest[..2]).join(&digest);
    std::fs::create_dir_all(blob.parent().unwrap()).unwrap();
    std::fs::write(&blob, "right").unwrap();
    let mode = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    for path in [&out.join("a"), &blob] {
        mode(path, 0);
    }
    // Root reads what nobody may.
    if !torchmill::platform::is_root() {
        refused(out.parent().unwrap(), read().unwrap_err());
        refused(&blob, store.blob(&digest, 5).unwrap_err());
    }
    for path in [&out.join("a"), &blob] {
        mode(path, 0o644);
    }
    assert_eq!(read().unwrap(), Some(out.clone()));
    assert!(store.blob(&digest, 5).unwrap().is_some());
}

#[test]
#[cfg(unix)]
fn what_was_set_aside_stays_for_its_time_however_old_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(Some(dir.path())).unwrap();
    let (key, out) = result(&store, &[("a", "1")]);
    change(&out.join("a"));
    let old = std::time::SystemTime::now() - Duration::from_secs(60 * 86_400);
    std::fs::File::open(out.parent().unwrap()).unwrap().set_modified(old).unwrap();
    assert_eq!(store.finished("s", &key).unwrap(), None);
    store.sweep();
    assert!(below_quarantine(&store).join("out/a").is_file());
}

#[test]
fn of_a_result_that_is_only_handed_over_its_top_is_judged_and_the_rest_when_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(Some(dir.path())).unwrap();
    let (key, out) = result(&store, &[("a.whl", "a wheel"), ("tree/b.py", "x = 1\n")]);
    change(&out.join("tree/b.py"));
    assert_eq!(store.judged("s", &key, Extent::Top).unwrap(), Some(out.clone()));
    std::fs::write(out.join("b.whl"), "another").unwrap();
    assert_eq!(store.judged("s", &key, Extent::Top).unwrap(), None);
    assert!(store.take_found()[0].contains("'b.whl' was put there"));
    std::fs::rename(below_quarantine(&store), out.parent().unwrap()).unwrap();
    std::fs::remove_file(out.join("b.whl")).unwrap();
    assert_eq!(store.finished("s", &key).unwrap(), None);
    assert!(store.take_found()[0].contains("'tree/b.py' was changed"));
}

/// The one result that was set aside.
fn below_quarantine(store: &Store) -> PathBuf {
    let mut all = std::fs::read_dir(store.root().join("quarantine")).unwrap();
    all.next().unwrap().unwrap().path()
}

#[test]
fn a_plan_reads_no_download() {
    let w = own();
    let (_, blob) = download(&w);
    change(&blob);
    let plan = w.run(&["build-torch", "--recipe", "standin", "--dry-run"]).exits(0);
    assert!(!plan.stderr.contains("set aside") && plan.stdout.contains("nothing to download"), "{plan:?}");
    // One of another size is none.
    std::fs::write(&blob, "cut").unwrap();
    w.run(&["build-torch", "--recipe", "standin", "--dry-run"]).exits(0).says("to download: 1 files");
}

#[test]
fn a_build_with_nothing_to_do_reads_no_artifact_of_the_store_and_puts_right_what_was_changed_in_dist() {
    let w = own();
    w.run(&["build-torch", "--recipe", "standin", "--until", "provenance"]).exits(0);
    let plan = w.run(&["build-torch", "--recipe", "standin", "--dry-run", "--json"]).exits(0);
    let plan: serde_json::Value = serde_json::from_str(&plan.stdout).unwrap();
    let verify = plan["plan"]["stages"].as_array().unwrap().iter().find(|s| s["stage"] == "verify").unwrap();
    let key: Key = serde_json::from_value(verify["key"].clone()).unwrap();
    // The stand-in is no torch that could be tried out.
    let verified = serde_json::json!({ "checks": [], "skipped": [] });
    Store::open(Some(&w.store)).unwrap().begin("verify", &key).unwrap().finish(&verified).unwrap();
    let stored = [artifact(&w, "wheel", ".whl"), artifact(&w, "bundle", ".tar.gz")];
    let placed = stored.each_ref().map(|path| w.path().join("dist").join(path.file_name().unwrap()));
    let right = stored.each_ref().map(|path| std::fs::read(path).unwrap());
    let size: usize = right.iter().map(Vec::len).sum();
    // How many bytes of the store were hashed because they were used, and what was said.
    let build = || {
        let ran = w.run(&["build-torch", "--recipe", "standin", "--json"]).exits(0);
        let said: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        for (path, right) in placed.iter().zip(&right) {
            assert!(std::fs::read(path).unwrap() == *right, "{} is another file", path.display());
        }
        (usize::try_from(said["judged"]["bytes"].as_u64().unwrap()).unwrap(), ran.stderr)
    };
    let (first, _) = build();
    let (again, said) = build();
    assert!(first >= again + size, "{first} and {again} bytes were hashed, {size} are of the artifacts");
    for stage in ["verify", "provenance", "wheel", "bundle"] {
        assert_eq!(said.matches(&format!("\"{stage}\"")).count(), 1, "{said}");
    }
    for path in &placed {
        change(path);
        build();
        std::fs::remove_file(path).unwrap();
        build();
    }
    // What is not used is not judged; when it is, it is made again.
    change(&stored[0]);
    assert!(!build().1.contains("set aside"));
    let said = w.run(&["build-torch", "--recipe", "standin", "--until", "wheel", "--json"]).exits(0).stderr;
    assert!(said.contains("was changed") && said.contains("set aside as"), "{said}");
}

#[test]
fn a_result_of_an_earlier_version_is_taken_once_and_judged_from_then_on() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(Some(dir.path())).unwrap();
    let key = KeyBuilder::new("s", 1).finish();
    let pending = store.begin("s", &key).unwrap();
    std::fs::write(pending.out().join("a"), "1").unwrap();
    let out = pending.finish(&serde_json::json!({ "made": 1 })).unwrap();
    // As they were written before: the record alone.
    std::fs::write(out.with_file_name("stage.json"), "{\"made\": 1}").unwrap();
    std::fs::remove_file(out.with_file_name("files.json")).unwrap();
    assert!(store.finished("s", &key).unwrap().is_some());
    assert!(store.take_found()[0].contains("before results had digests"));
    assert_eq!(store.record::<serde_json::Value>("s", &key).unwrap().unwrap()["made"], 1);
    change(&out.join("a"));
    assert!(store.finished("s", &key).unwrap().is_none());
    assert!(store.take_found()[0].contains("'a' was changed"));
}

#[test]
fn kept_answers_of_cmake_that_were_changed_are_not_run_and_are_asked_for_again() {
    let w = workspace(&fresh_files());
    let configure = || w.run(&["build-torch", "--recipe", "standin", "--until", "configure"]);
    configure().exits(0);
    let work = work_folder(&w);
    let name = work.file_name().unwrap().to_str().unwrap().strip_prefix("torch-").unwrap();
    let kept = w.store.join(format!("v1/cache/checks/{name}.checks"));
    let right = std::fs::read_to_string(&kept).unwrap();
    let evil = "message(FATAL_ERROR \"it ran\")\n";
    let line = "set(HAVE_MMAP \"1\" CACHE INTERNAL \"asked before\")\n";
    let harms = [
        evil.to_owned(),
        // Other answers under the digest that was there, and something else than answers under its own.
        format!("{right}{line}"),
        format!("# sha256:{}\n{evil}", sha256(evil.as_bytes())),
        String::new(),
    ];
    for harm in harms {
        std::fs::write(&kept, &harm).unwrap();
        std::fs::remove_dir_all(&work).unwrap();
        let ran = configure().exits(0).says("is not what was kept there");
        assert!(!ran.stderr.contains("it ran"), "{ran:?}");
        assert_eq!(std::fs::read_to_string(&kept).unwrap(), right, "{harm}");
    }
    // Nor is what stands in a work folder, where none are kept.
    std::fs::remove_file(&kept).unwrap();
    std::fs::write(work.join("checks.cmake"), evil).unwrap();
    std::fs::remove_file(work.join("configure.json")).unwrap();
    let ran = configure().exits(0);
    assert!(!ran.stderr.contains("is not what was kept there"), "{ran:?}");
    assert_eq!(std::fs::read_to_string(&kept).unwrap(), right);
}

#[test]
fn clean_takes_nothing_from_under_a_shell() {
    let w = own();
    let mut shell = w.xtask(&["shell", "--recipe", "standin", "--", "sh", "-c", "echo ready; read line; ls ../bin"]);
    let mut child = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(said.by_ref().any(|line| line.unwrap() == "ready"), "the shell did not begin");
    for args in [&[][..], &["--all"]] {
        let ran = Ran::of(&mut clean_of(&w.store, args), w.path()).exits(3);
        ran.says(&format!("process {} is at work", child.id())).says("nothing is removed");
    }
    // Others may use it meanwhile, and a look removes nothing.
    tree(&w).exits(0);
    Ran::of(&mut clean_of(&w.store, &["--dry-run"]), w.path()).exits(0).says("would be given back");
    writeln!(child.stdin.take().unwrap(), "go on").unwrap();
    assert!(said.any(|line| line.unwrap().starts_with("torchmill")), "its folder is gone");
    assert!(child.wait().unwrap().success());
    Ran::of(&mut clean_of(&w.store, &[]), w.path()).exits(0).says("given back");
    assert!(!w.store.join("v1/work").exists());
}

#[test]
fn a_digest_of_a_lock_is_64_hexadecimal_digits_or_the_lock_is_refused() {
    let w = own();
    let path = w.path().join("recipes/standin.lock");
    let lock = std::fs::read_to_string(&path).unwrap();
    let digest = sha256(&std::fs::read(w.path().join("standin.tar")).unwrap());
    for bad in [
        "../../../../evil.tar",
        "a",
        "é",
        "",
        &digest.to_uppercase(),
        &digest[1..],
        &format!("{digest}0"),
        "\\u001b[2J",
    ] {
        std::fs::write(&path, lock.replace(&digest, bad)).unwrap();
        let ran = w
            .run(&["tree", "--recipe", "standin", "--offline"])
            .exits(2)
            .says("is no SHA-256 of 64 hexadecimal digits");
        assert!(!ran.stderr.contains("panicked") && !ran.stderr.contains('\u{1b}'), "{bad:?}: {}", ran.stderr);
    }
}

/// `clean` of this store.
fn clean_of(store: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_torchmill"));
    command.args(["clean", "--store", store.to_str().unwrap()]).args(args);
    command
}

#[test]
fn what_a_killed_run_left_is_shown_and_removed_and_what_is_under_way_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(Some(dir.path())).unwrap();
    let key = |n| KeyBuilder::new("s", n).finish();
    let alive = store.begin("s", &key(1)).unwrap();
    // As a run that was killed leaves one: nobody holds it, nobody removes it.
    let dead = store.begin("s", &key(2)).unwrap();
    std::fs::write(dead.out().join("large"), vec![0; 5000]).unwrap();
    let left = dead.out().parent().unwrap().with_file_name(".left-by-a-killed-run");
    std::fs::create_dir(&left).unwrap();
    std::fs::copy(dead.out().join("large"), left.join("large")).unwrap();
    std::fs::write(left.join(".owner"), "").unwrap();
    assert_eq!(store.leftovers(), std::slice::from_ref(&left));
    let clean = |args: &[&str]| Ran::of(&mut clean_of(dir.path(), args), dir.path()).exits(0);
    let ran = clean(&["--dry-run"]);
    assert!(ran.stdout.contains(".left-by-a-killed-run") && left.exists(), "{ran:?}");
    // Nothing is removed while it is open.
    drop(store);
    clean(&[]);
    assert!(!left.exists());
    let store = Store::open(Some(dir.path())).unwrap();
    std::fs::create_dir(&left).unwrap();
    std::fs::write(left.join(".owner"), "").unwrap();
    store.sweep();
    assert!(!left.exists() && alive.out().exists() && dead.out().exists());
}

#[test]
#[cfg(unix)]
fn root_uses_no_store_that_others_can_write_to() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let named = dir.path().join("above/store");
    let store = Store::open(Some(&named)).unwrap();
    assert_eq!(store.shared(), None);
    let blobs = store.root().join("blobs");
    std::fs::set_permissions(&blobs, std::fs::Permissions::from_mode(0o777)).unwrap();
    assert!(store.shared().unwrap().ends_with("has the mode 0777"));
    let inside = ["parts", "locks", "quarantine", "stages/fetch", "stages/fetch/0123", "blobs/01", "work/tree-0"];
    let below = ["work/tree-0/src", "cache", "cache/consumers", "cache/git/x", "inner", "inner/x", "inner/x/v1"];
    for folder in inside.into_iter().chain(below).chain(["..", "../.."]) {
        std::fs::set_permissions(&blobs, std::fs::Permissions::from_mode(0o755)).unwrap();
        let path = store.root().join(folder);
        std::fs::create_dir_all(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(store.shared().is_some_and(|how| how.ends_with("has the mode 0777")), "{folder}");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(store.shared(), None, "{folder}");
    }
    // In caches, files stand where others have folders.
    let table = store.root().join("cache/checks/0123.checks");
    std::fs::create_dir_all(table.parent().unwrap()).unwrap();
    std::fs::write(&table, "").unwrap();
    std::fs::set_permissions(&table, std::fs::Permissions::from_mode(0o666)).unwrap();
    assert!(store.shared().is_some_and(|how| how.ends_with("has the mode 0666")));
    std::fs::set_permissions(&table, std::fs::Permissions::from_mode(0o644)).unwrap();
    if torchmill::platform::is_root() {
        // Of another user: as good as open to everybody.
        for path in [&table, &store.root().join("cache/git"), &store.root().join("inner/x")] {
            std::os::unix::fs::chown(path, Some(65534), None).unwrap();
            assert!(store.shared().is_some_and(|how| how.contains("belongs to user 65534")), "{}", path.display());
            let clean = Ran::of(&mut clean_of(&named, &["--dry-run"]), dir.path());
            clean.exits(2).says("belongs to user 65534");
            std::os::unix::fs::chown(path, Some(0), None).unwrap();
        }
    }
    assert_eq!(store.shared(), None);
    // Named by a link, in a folder where everybody may put another one there.
    let open = dir.path().join("open");
    std::fs::create_dir(&open).unwrap();
    std::os::unix::fs::symlink(dir.path().join("above"), open.join("link")).unwrap();
    let through = Store::existing(Some(&open.join("link/store"))).unwrap().unwrap();
    assert_eq!(through.shared(), None);
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).unwrap();
    assert!(through.shared().is_some_and(|how| how.contains("open belongs to")), "{:?}", through.shared());
    std::fs::set_permissions(&blobs, std::fs::Permissions::from_mode(0o777)).unwrap();
    let opened = Store::open(Some(&named));
    if torchmill::platform::is_root() {
        let e = opened.unwrap_err();
        assert_eq!((e.code(), e.exit()), ("store-shared", Exit::Misuse));
        assert!(e.what().contains("mode 0777"), "{e}");
    } else {
        opened.unwrap();
    }
}
