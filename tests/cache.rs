//! Compiled objects that travel: `cache export`, `cache import`, and the sample that a build compiles again; on a
//! stand-in for PyTorch.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::pipeline::{artifact, own_store_with_tools};
use crate::provenance::keys;
use crate::standin::{build, command, dist, files, work_folder, workspace};
use crate::support::{Ran, Workspace, node_packages, sha256};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A workspace with the stand-in, and a store of its own.
fn machine() -> Workspace {
    let mut w = workspace(&files());
    own_store_with_tools(&mut w);
    w
}

/// The same, with 34 sources more: more objects than a sample has at the least.
fn machine_with_many() -> Workspace {
    let mut files = files();
    files.extend((6..40).map(|i| (format!("fill/f{i}.cpp"), format!("int f{i}() {{ return {i}; }}\n"))));
    let mut w = workspace(&files);
    own_store_with_tools(&mut w);
    w
}

/// The archive and its signed statement, out of a machine that compiled everything.
struct Published {
    w: Workspace,
    archive: PathBuf,
    key: PathBuf,
    other_key: PathBuf,
}

fn published() -> Published {
    published_by(machine(), 9)
}

/// Those of a machine, with so many objects.
fn published_by(w: Workspace, objects: usize) -> Published {
    w.run(&["build-torch", "--recipe", "standin", "--until", "bundle"]).exits(0);
    let (private, key) = keys(&w, "signing");
    let (_, other_key) = keys(&w, "other");
    let out = w.path().join("objects");
    let ran = w
        .run(&["cache", "export", "--recipe", "standin", "--out", text(&out), "--sign", text(&private), "--json"])
        .exits(0);
    let json: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(json["exported"]["about"]["objects"], objects, "{}", ran.stdout);
    let name = Path::new(json["exported"]["file"].as_str().unwrap()).file_name().unwrap().to_owned();
    let archive = out.join(name);
    Published { w, archive, key, other_key }
}

impl Published {
    fn import(&self, on: &Workspace, more: &[&str]) -> Ran {
        on.run(&[&["cache", "import", text(&self.archive)], more].concat())
    }
}

#[test]
#[cfg(target_os = "linux")]
fn what_is_asked_for_objects_that_are_built_again_is_run_in_their_room() {
    let published = published();
    // What runs in the room knows nothing of this variable: all that is told is run outside.
    let mut c = published.w.xtask(&["rebuild", "--trust", "--offline", text(&published.archive)]);
    let ran = Ran::of(c.env("TORCHMILL_LOG", "command=info"), published.w.path());
    assert!(ran.stdout.contains("same:") || ran.stdout.contains("differs, here:"), "{ran:?}");
    assert!(!ran.stderr.contains("-t compdb") && !ran.stderr.contains("-t deps"), "{}", ran.stderr);
}

/// The files of an archive.
fn unpacked(archive: &Path) -> BTreeMap<String, Vec<u8>> {
    let gz = flate2::read::MultiGzDecoder::new(std::fs::File::open(archive).unwrap());
    let mut tar = tar::Archive::new(gz);
    tar.entries()
        .unwrap()
        .map(|entry| {
            let mut entry = entry.unwrap();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            (entry.path().unwrap().display().to_string(), bytes)
        })
        .collect()
}

/// Writes an archive with other files, and a statement about it in the words of the old one.
fn packed_again(published: &Published, files: &BTreeMap<String, Vec<u8>>) {
    let gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut tar = tar::Builder::new(gz);
    for (name, bytes) in files {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, name, bytes.as_slice()).unwrap();
    }
    let bytes = tar.into_inner().unwrap().finish().unwrap();
    let statement = published.archive.to_str().unwrap().replace(".tar.gz", ".provenance.json");
    let mut json: serde_json::Value = serde_json::from_slice(&std::fs::read(&statement).unwrap()).unwrap();
    json["subject"][0]["digest"]["sha256"] = sha256(&bytes).into();
    std::fs::write(&published.archive, bytes).unwrap();
    std::fs::write(&statement, json.to_string()).unwrap();
    let private = published.w.path().join("signing.pem");
    published.w.run(&["sign", &statement, "--key", text(&private)]).exits(0);
}

/// The archive with one object, of `source`, that is another one than the compiler makes, signed by the trusted key.
fn poison(published: &Published, source: &str) -> String {
    let mut files = unpacked(&published.archive);
    let names: Vec<String> = files.keys().filter(|name| name.starts_with("entries/")).cloned().collect();
    let is_of_it = |name: &&String| {
        let entry: serde_json::Value = serde_json::from_slice(&files[*name]).unwrap();
        entry["output"].as_str().unwrap().contains(source)
    };
    let name = names.iter().find(is_of_it).unwrap();
    let mut entry: serde_json::Value = serde_json::from_slice(&files[name]).unwrap();
    let mut object = files[&format!("objects/{}", entry["object"].as_str().unwrap())].clone();
    // Bytes behind an ELF file are no part of it, and a linker takes it.
    object.extend_from_slice(b"poison");
    entry["object"] = sha256(&object).into();
    entry["size"] = object.len().into();
    let output = entry["output"].as_str().unwrap().to_owned();
    files.insert(format!("objects/{}", sha256(&object)), object);
    files.insert(name.clone(), entry.to_string().into_bytes());
    packed_again(published, &files);
    output
}

#[test]
fn objects_of_one_machine_make_the_same_wheel_on_another() {
    let p = published();
    let first = std::fs::read(&p.archive).unwrap();
    // Exported twice: the same bytes, also of what another machine compiled.
    let again = p.w.path().join("again");
    p.w.run(&["cache", "export", "--recipe", "standin", "--out", text(&again)]).exits(0).says("9 objects");
    assert_eq!(std::fs::read(again.join(p.archive.file_name().unwrap())).unwrap(), first);
    // `verify` knows it.
    p.w.run(&["verify", text(&p.archive), "--key", text(&p.key)]).exits(0).says("recipe standin");

    let there = machine();
    p.import(&there, &["--key", text(&p.key)]).exits(0).says("9 objects").says("the key ");
    let ran = build(&there, &["--cache-audit", "0"]).exits(0);
    assert!(ran.stderr.contains("are used where they fit"), "{}", ran.stderr);
    let notes = std::fs::read_to_string(work_folder(&there).join("objects.notes")).unwrap();
    assert_eq!(notes.lines().filter(|line| line.starts_with('+')).count(), 9, "{notes}");
    let wheel = |w: &Workspace| std::fs::read(artifact(w, "wheel", ".whl")).unwrap();
    assert!(wheel(&there) == wheel(&p.w), "the same bytes");
    let out = there.path().join("exported");
    let ran = there.run(&["cache", "export", "--recipe", "standin", "--out", text(&out)]).exits(0);
    assert!(ran.stderr.contains("9 of the objects were not compiled on this machine"), "{}", ran.stderr);
    assert!(std::fs::read(out.join(p.archive.file_name().unwrap())).unwrap() == first, "the same bytes");
}

#[test]
fn a_statement_says_which_share_of_the_objects_came_from_elsewhere() {
    let (p, there) = (published(), machine());
    p.import(&there, &["--key", text(&p.key)]).exits(0);
    build(&there, &[]).exits(0).says("of them are compiled again and compared (seed ");
    let said = stated(&there).unwrap();
    assert_eq!(
        (said["objects"].as_u64(), said["imported"].as_u64(), said["audited"].as_u64()),
        (Some(9), Some(9), Some(9))
    );
    assert!(said["writer"].as_str().unwrap().starts_with("the key "), "{said}");
    assert_eq!(stated(&p.w), None);
}

#[test]
fn a_policy_keeps_back_what_others_compiled_or_what_nobody_compiled_again() {
    let p = published();
    for (audit, own, audited) in [("0", 1, 1), ("100", 1, 0)] {
        let there = machine();
        p.import(&there, &["--key", text(&p.key)]).exits(0);
        build(&there, &["--cache-audit", audit]).exits(0);
        let made = dist(&there);
        let (private, _) = keys(&there, "builder");
        there.run(&["sign", text(&made.statement), "--key", text(&private)]).exits(0);
        for (objects, end) in [("own", own), ("audited", audited)] {
            let policy = format!("schema = 1\nkeys = [\"builder.pub\"]\nobjects = \"{objects}\"\n");
            let policy = there.write("policy.toml", policy);
            let publish = ["publish", "--dry-run", "--policy", text(&policy), text(&made.dir)];
            there.run(&publish).exits(end).says("9 came from elsewhere");
        }
    }
}

/// What the statement of a finished build says of where its objects came from.
fn stated(w: &Workspace) -> Option<serde_json::Value> {
    until(w, "provenance", &[]).exits(0);
    let statement = std::fs::read(artifact(w, "provenance", ".provenance.json")).unwrap();
    let statement: serde_json::Value = serde_json::from_slice(&statement).unwrap();
    statement.pointer("/predicate/buildDefinition/internalParameters/objects").cloned()
}

/// `build-torch` of the stand-in until a stage.
fn until(w: &Workspace, stage: &str, more: &[&str]) -> Ran {
    w.run(&[&["build-torch", "--recipe", "standin", "--until", stage], more].concat())
}

/// How many objects each sample of a build compiled again.
fn compiled_again(ran: &Ran) -> Vec<usize> {
    let said = ran.stderr.split(" objects came from elsewhere; ").skip(1);
    said.map(|rest| rest.split(' ').next().unwrap().parse().unwrap()).collect()
}

/// Puts other bytes in the place of a source in a work folder, whose file the tree in the store shares. Its time stays:
/// ninja goes by that.
fn put_in_place(source: &Path, bytes: &[u8]) {
    let time = std::fs::metadata(source).unwrap().modified().unwrap();
    std::fs::remove_file(source).unwrap();
    std::fs::write(source, bytes).unwrap();
    std::fs::File::options().write(true).open(source).unwrap().set_modified(time).unwrap();
}

#[test]
fn a_build_compiles_one_sample_again_and_no_stage_one_of_its_own() {
    let (p, there) = (published_by(machine_with_many(), 43), machine_with_many());
    p.import(&there, &["--key", text(&p.key)]).exits(0);
    let ran = build(&there, &[]).exits(0);
    // One of the canary's three, and ten of all; the canary's one is rounded up, and that may make it one more.
    let again = compiled_again(&ran);
    assert_eq!((again.len(), again[0]), (2, 1), "{}", ran.stderr);
    let sum: usize = again.iter().sum();
    assert!((10..=11).contains(&sum), "{}", ran.stderr);
    let said = stated(&there).unwrap();
    assert_eq!((said["imported"].as_u64(), said["audited"].as_u64()), (Some(43), Some(sum as u64)), "{said}");
}

#[test]
fn a_build_that_ends_with_the_canary_owes_nothing_of_its_sample_and_what_goes_on_draws_none_twice() {
    let (p, there) = (published(), machine());
    p.import(&there, &["--key", text(&p.key)]).exits(0);
    until(&there, "configure", &[]).exits(0);
    // It is stopped after its canary, of whose three objects it drew its share.
    let filler = work_folder(&there).join("src/fill/f3.cpp");
    let whole = std::fs::read(&filler).unwrap();
    put_in_place(&filler, b"#error\n");
    let ran = until(&there, "bundle", &[]).exits(3);
    assert_eq!(compiled_again(&ran), [1], "{}", ran.stderr);
    // The canary is done, and as the end of a build it is not. What was compiled before it was stopped counts as well.
    let ran = until(&there, "canary", &[]).exits(0).says("canary (in the store)");
    let before = ran.stderr.split(" objects came from elsewhere").next().unwrap();
    let came: usize = before.rsplit(' ').next().unwrap().parse().unwrap();
    assert!((3..9).contains(&came), "{}", ran.stderr);
    assert_eq!(compiled_again(&ran), [came - 1], "{}", ran.stderr);
    let ran = until(&there, "canary", &[]).exits(0);
    assert!(compiled_again(&ran).is_empty(), "{}", ran.stderr);
    put_in_place(&filler, &whole);
    let ran = until(&there, "bundle", &[]).exits(0);
    assert_eq!(compiled_again(&ran), [9 - came], "{}", ran.stderr);
    assert_eq!(stated(&there).unwrap()["audited"], 9);
}

#[test]
fn a_part_without_objects_ends_a_build_that_owes_nothing_of_its_sample() {
    let (p, there) = (published(), machine());
    p.import(&there, &["--key", text(&p.key)]).exits(0);
    let ran = there.run(&["build-torch", "--recipe", "standin", "--shard", "20/20"]).exits(0);
    assert_eq!(compiled_again(&ran), [1, 2], "{}", ran.stderr);
}

#[test]
fn a_sample_that_was_stopped_goes_on_where_it_was() {
    let (p, there) = (published(), machine());
    p.import(&there, &["--key", text(&p.key)]).exits(0);
    until(&there, "canary", &["--cache-audit", "0"]).exits(0);
    // What ninja has done already and the sample cannot do.
    let source = work_folder(&there).join("src/torch/csrc/distributed/c10d/TCPStoreLibUvBackend.cpp");
    let whole = std::fs::read(&source).unwrap();
    put_in_place(&source, b"#error\n");
    let all = &["--cache-audit", "100", "--jobs", "1"];
    let ran = until(&there, "bundle", all).exits(3);
    assert_eq!(compiled_again(&ran), [9], "{}", ran.stderr);
    put_in_place(&source, &whole);
    // TCPStore.cpp, as long as the other one by the table of times and before it by its name, was compiled then.
    let ran = until(&there, "bundle", all).exits(0);
    assert_eq!(compiled_again(&ran), [8], "{}", ran.stderr);
    assert_eq!(stated(&there).unwrap()["audited"], 9);
}

#[test]
fn a_false_object_that_the_canary_used_makes_what_it_found_out_worth_nothing() {
    let (p, there) = (published(), machine());
    let output = poison(&p, "c10d/TCPStore.cpp");
    p.import(&there, &["--key", text(&p.key)]).exits(0);
    until(&there, "canary", &["--cache-audit", "0"]).exits(0);
    build(&there, &["--cache-audit", "100"]).exits(1).says(&format!("the object {output} of "));
    let ran = build(&there, &[]).exits(0);
    assert!(!ran.stderr.contains("canary (in the store)"), "{}", ran.stderr);
    let wheel = |w: &Workspace| std::fs::read(artifact(w, "wheel", ".whl")).unwrap();
    assert!(wheel(&there) == wheel(&p.w), "the same bytes");
}

#[test]
fn the_sample_is_compiled_past_a_ccache_that_is_called_as_the_compiler() {
    // It does what ccache does where it is told so: nothing but to start the compiler.
    let script = "#!/bin/sh\n[ -z \"$CCACHE_DISABLE\" ] || echo past >> \"${0%/*}/past\"\nexec g++ \"$@\"\n";
    let run = |w: &Workspace, args: &[&str]| {
        let compiler = w.write("called_as_g++", script);
        Command::new("chmod").arg("+x").arg(&compiler).status().unwrap();
        Ran::of(w.xtask(args).env("CXX", &compiler).env_remove("CCACHE_DISABLE"), w.path())
    };
    let (first, there) = (machine(), machine());
    let compile = ["build-torch", "--recipe", "standin", "--until", "compile", "--cache-audit", "100"];
    run(&first, &compile).exits(0);
    let out = first.path().join("objects");
    run(&first, &["cache", "export", "--recipe", "standin", "--out", text(&out)]).exits(0);
    let archive = entries(&out).into_iter().find(|path| text(path).ends_with(".tar.gz")).unwrap();
    let trust = format!("--trust={}", sha256(&std::fs::read(&archive).unwrap()));
    run(&there, &["cache", "import", text(&archive), trust.as_str()]).exits(0);
    let ran = run(&there, &compile).exits(0);
    assert_eq!(compiled_again(&ran).iter().sum::<usize>(), 9, "{}", ran.stderr);
    let past = std::fs::read_to_string(there.path().join("past")).unwrap_or_default();
    assert!(past.lines().count() >= 9, "{past}{}", ran.stderr);
}

#[test]
fn an_archive_is_refused_where_nobody_trusts_it_or_it_is_not_what_was_signed() {
    let (p, there) = (published(), machine());
    p.import(&there, &[]).exits(1).says("nobody whom you trust signed it").says("--trust=");
    p.import(&there, &["--key", text(&p.other_key)]).exits(1).says("another key made it");
    let whole = std::fs::read(&p.archive).unwrap();
    p.import(&there, &[&format!("--trust={}", "0".repeat(64))]).exits(1).says("this is not what --trust=");
    p.import(&there, &[&format!("--trust={}", sha256(&whole))]).exits(0).says("nobody (--trust) answers for them");
    // One byte, and half of it.
    let mut changed = whole.clone();
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    for bytes in [&changed, &whole[..middle]] {
        std::fs::write(&p.archive, bytes).unwrap();
        p.import(&there, &["--key", text(&p.key)]).exits(2);
    }
    std::fs::write(&p.archive, &whole).unwrap();
    // Signed as it is, and not what it says of itself.
    let good = unpacked(&p.archive);
    let object = good.keys().find(|name| name.starts_with("objects/")).unwrap().clone();
    for (change, says) in [
        (Some((object.clone(), b"x".to_vec())), "has the SHA-256"),
        (Some(("entries/x".into(), b"{}".to_vec())), "says nothing of an object"),
        (Some(("more".into(), Vec::new())), "has no business in it"),
        (None, "is missing"),
    ] {
        let mut files = good.clone();
        match change {
            Some((name, bytes)) => files.insert(name, bytes),
            None => files.remove(&object),
        };
        packed_again(&p, &files);
        p.import(&there, &["--key", text(&p.key)]).exits(2).says(says);
    }
}

#[test]
#[cfg(unix)]
fn what_an_archive_says_that_it_read_has_bounds() {
    let (p, there) = (published(), machine());
    let good = unpacked(&p.archive);
    // A header that has no end: it is another one here, and no object read it.
    let mut about: serde_json::Value = serde_json::from_slice(&good["about.json"]).unwrap();
    about["headers"]["/dev/zero"] = "0".repeat(64).into();
    let mut files = good.clone();
    files.insert("about.json".into(), about.to_string().into_bytes());
    packed_again(&p, &files);
    p.import(&there, &["--key", text(&p.key)]).exits(0);
    // A list of files that is read as a whole.
    let list = vec![b'\n'; (4 << 20) + 1];
    let mut files = good;
    files.insert(format!("reads/{}", sha256(&list)), list);
    packed_again(&p, &files);
    p.import(&there, &["--key", text(&p.key)]).exits(2).says("has more than 4194304 bytes");
}

#[test]
fn objects_of_another_compiler_recipe_or_python_are_refused_by_name() {
    let (p, there) = (published(), machine());
    let compiler = there.write(
        "other-g++",
        "#!/bin/sh\ncase \"$1\" in --version) echo 'g++ (Other) 99.1';; *) exec g++ \"$@\";; esac\n",
    );
    Command::new("chmod").arg("+x").arg(&compiler).status().unwrap();
    let mut import = there.xtask(&["cache", "import", text(&p.archive), "--key", text(&p.key)]);
    Ran::of(import.env("CXX", &compiler), there.path())
        .exits(2)
        .says("were made by another compiler")
        .says("CC and CXX");
    let recipe = std::fs::read_to_string(there.path().join("recipes/standin.toml")).unwrap();
    there.write("recipes/second.toml", recipe);
    std::fs::copy(there.path().join("recipes/standin.lock"), there.path().join("recipes/second.lock")).unwrap();
    p.import(&there, &["--key", text(&p.key), "--recipe", "second"]).exits(2).says("--recipe standin");
    let mut files = unpacked(&p.archive);
    let mut about: serde_json::Value = serde_json::from_slice(&files["about.json"]).unwrap();
    about["python"] = "3.99".into();
    files.insert("about.json".into(), about.to_string().into_bytes());
    packed_again(&p, &files);
    p.import(&there, &["--key", text(&p.key)]).exits(2).says("is for Python 3.99");
}

#[test]
fn an_object_that_the_compiler_does_not_make_ends_the_build_and_all_that_came_with_it_goes() {
    let (p, there) = (published(), machine());
    let output = poison(&p, "fill/f3.cpp");
    p.import(&there, &["--key", text(&p.key)]).exits(0);
    let ran = build(&there, &["--cache-audit", "100"]).exits(1);
    let ran = ran.says(&format!("the object {output} of ")).says("the key ").says("was compiled");
    assert!(!ran.stderr.contains("» wheel"), "{}", ran.stderr);
    assert!(!work_folder(&there).join("src/build").join(&output).exists());
    there.run(&["cache", "remove", "--recipe", "standin"]).exits(0).says("nothing came in");
    // The same command again compiles everything, and the wheel is the honest one.
    build(&there, &[]).exits(0);
    let wheel = |w: &Workspace| std::fs::read(artifact(w, "wheel", ".whl")).unwrap();
    assert!(wheel(&there) == wheel(&p.w), "the same bytes");
}

#[test]
fn without_a_compiler_cache_nothing_from_elsewhere_is_used() {
    let (p, there) = (published(), machine());
    p.import(&there, &["--key", text(&p.key)]).exits(0);
    let mut command = command(&there, &["--no-compiler-cache"]);
    Ran::of(&mut command, there.path()).exits(0);
    assert!(!work_folder(&there).join("objects.notes").exists());
    there.run(&["cache", "remove", "--recipe", "standin"]).exits(0).says("removed: standin-cp3");
}

#[test]
fn what_was_not_compiled_cannot_be_exported() {
    let w = machine();
    w.run(&["cache", "export", "--recipe", "standin"]).exits(2).says("no finished compile").says("build-torch");
}

/// A build of the stand-in with a shared cache in a folder.
fn with_cache(w: &Workspace, cache: &Path, more: &[&str]) -> Ran {
    build(w, &[&["--cache", text(cache)], more].concat())
}

/// Entries in the folder of a shared cache.
fn entries(cache: &Path) -> Vec<PathBuf> {
    let files =
        walkdir::WalkDir::new(cache).sort_by_file_name().into_iter().flatten().filter(|e| e.file_type().is_file());
    files.map(walkdir::DirEntry::into_path).collect()
}

#[test]
#[ignore = "needs ccache"]
fn a_shared_cache_serves_another_machine_under_the_key_that_it_trusts_and_no_other() {
    let (first, second, third) = (machine(), machine(), machine());
    let (private, public) = keys(&first, "signing");
    let (_, other) = keys(&first, "other");
    let cache = first.path().join("shared");
    std::fs::create_dir(&cache).unwrap();
    with_cache(&first, &cache, &["--cache-sign", text(&private)]).exits(0).says("0 entries read");
    assert!(entries(&cache).len() >= 18, "a manifest and a result for each object");
    let ran = with_cache(&second, &cache, &["--cache-trust", text(&public)]).exits(0);
    assert!(ran.stderr.contains("of them are compiled again"), "{}", ran.stderr);
    let log = std::fs::read_to_string(work_folder(&second).join("ccache.shared.log")).unwrap();
    assert_eq!(log.lines().filter(|line| *line == "remote_storage_hit").count(), 9, "{log}");
    let wheel = |w: &Workspace| std::fs::read(artifact(w, "wheel", ".whl")).unwrap();
    assert!(wheel(&first) == wheel(&second), "the same bytes");
    let ran = with_cache(&third, &cache, &["--cache-trust", text(&other)]).exits(0).says("0 entries read");
    assert!(ran.stderr.contains("are of nobody whom you trust"), "{}", ran.stderr);
    // ccache keeps what it reads, so a later build of the same store finds it here: it is the others' still. What was
    // compiled here is not, though it lies in such a folder too.
    std::fs::remove_dir_all(&cache).unwrap();
    std::fs::create_dir(&cache).unwrap();
    for (w, key, of_others) in [(&second, &public, 9), (&third, &other, 0)] {
        w.run(&["clean"]).exits(0);
        for stage in ["wheel", "bundle"] {
            std::fs::remove_dir_all(w.store.join("v1/stages").join(stage)).unwrap();
        }
        let ran = with_cache(w, &cache, &["--cache-trust", text(key), "--cache-audit", "100"]).exits(0);
        let log = std::fs::read_to_string(work_folder(w).join("ccache.shared.log")).unwrap();
        assert_eq!(log.lines().filter(|line| *line == "local_storage_hit").count(), 9, "{log}");
        assert_eq!(from_elsewhere(&ran), of_others, "{}", ran.stderr);
    }
}

/// Objects of a build that came from elsewhere, as its last sample says.
fn from_elsewhere(ran: &Ran) -> u64 {
    let before = ran.stderr.rsplit_once(" objects came from elsewhere; ").map(|(before, _)| before);
    before.map_or(0, |before| before.rsplit(' ').next().unwrap().trim().parse().unwrap())
}

/// `build-torch` with the settings that the rendered workflows have, and the folder that they name.
fn with_objects(w: &Workspace, args: &[&str]) -> Ran {
    w.write("ci/objects.toml", include_str!("../ci/objects.toml"));
    std::fs::create_dir_all(w.path().join("objects")).unwrap();
    let mut command = w.xtask(&[&["build-torch", "--recipe", "standin"], args].concat());
    Ran::of(command.env("TORCHMILL_SETTINGS", "ci/objects.toml"), w.path())
}

#[test]
#[ignore = "needs ccache"]
fn several_machines_compile_a_part_each_and_one_makes_the_same_wheel_of_all_parts() {
    let last = machine();
    std::fs::create_dir(last.path().join("objects")).unwrap();
    let mut objects = 0;
    for part in ["1/2", "2/2"] {
        let w = machine();
        with_objects(&w, &["--shard", part]).exits(0).says("stopped after shard");
        let folder = work_folder(&w);
        assert!(!folder.join("src/build/lib/libtorch_cpu.so").exists(), "a part is linked to nothing");
        let record: serde_json::Value =
            serde_json::from_slice(&std::fs::read(folder.join("shard.json")).unwrap()).unwrap();
        assert_eq!(record["of"], 9, "{record}");
        let own = record["objects"].as_u64().unwrap();
        assert!((4..=5).contains(&own), "{record}");
        objects += own;
        // The same part again is done, another one is not.
        with_objects(&w, &["--shard", part]).exits(0).says("shard (in the store)");
        let plan = with_objects(&w, &["--shard", "2/3", "--dry-run"]).exits(0);
        assert!(plan.stdout.lines().any(|l| l.trim().starts_with("shard") && l.contains("to do")), "{}", plan.stdout);
        let (from, to) = (w.path().join("objects/."), last.path().join("objects"));
        assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
    }
    assert_eq!(objects, 9);
    with_objects(&last, &["--until", "bundle"]).exits(0);
    let log = std::fs::read_to_string(work_folder(&last).join("ccache.shared.log")).unwrap();
    assert_eq!(log.lines().filter(|line| *line == "remote_storage_hit").count(), 9, "{log}");
    // A page says so, also where there is no farm; of one that is away it says that.
    let page = last.path().join("cache.html");
    last.run(&["farm", "status", "--html", text(&page)]).exits(0).says("of 9 from elsewhere");
    let said = std::fs::read_to_string(&page).unwrap();
    assert!(said.contains("2.6.0+standin") && said.contains("100.0 %") && said.contains("9 of 9"), "{said}");
    std::fs::remove_file(&page).unwrap();
    last.run(&["farm", "status", "--farm", "http://127.0.0.1:9", "--html", text(&page)]).exits(3);
    assert!(std::fs::read_to_string(&page).unwrap().contains("does not answer"));
    let alone = machine();
    build(&alone, &[]).exits(0);
    let wheel = |w: &Workspace| std::fs::read(artifact(w, "wheel", ".whl")).unwrap();
    assert!(wheel(&last) == wheel(&alone), "the same bytes");
}

#[test]
fn a_part_is_written_as_its_number_and_how_many_there_are() {
    let w = machine();
    for wrong in ["0/4", "5/4", "1", "a/b", "1/0", "1/9999", ""] {
        w.run(&["build-torch", "--recipe", "standin", "--shard", wrong]).exits(2).says("2/4");
    }
    w.run(&["build-torch", "--recipe", "standin", "--shard", "1/2", "--until", "canary"]).exits(2).says("--until");
    w.run(&["build-torch", "--recipe", "standin", "--shard", "1/2", "--no-compiler-cache"]).exits(2);
}

#[test]
#[ignore = "needs ccache"]
fn a_cache_that_is_away_costs_a_warning_and_a_wrong_address_is_misuse() {
    let w = machine();
    with_cache(&w, &w.path().join("none"), &["--cache-trust", "unsigned"]).exits(0).says("there is no such folder");
    let w = machine();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for scheme in ["redis", "http"] {
        let url = format!("{scheme}://{free}/");
        build(&w, &["--cache", &url, "--cache-trust", "unsigned"]).exits(0);
    }
    build(&w, &["--cache", "/tmp"]).exits(2).says("whose entries of the cache /tmp may be read");
    build(&w, &["--cache", "https://bob:s3cret@h/", "--cache-trust", "unsigned"])
        .exits(2)
        .says("no place in an address");
    build(&w, &["--cache-trust", "unsigned"]).exits(2).says("none was named");
    let settings = w.write("settings.toml", "[cache]\nurl = \"/tmp\"\ntrust = [\"unsigned\", \"a.pub\"]\n");
    let mut command = command(&w, &[]);
    Ran::of(command.env("TORCHMILL_SETTINGS", settings), w.path()).exits(2).says("beside keys");
}

/// A store that speaks S3, with a bucket `team` and one key, of which it looks at the name alone.
struct S3 {
    child: Child,
    address: String,
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl S3 {
    /// Starts it with its files in `dir`.
    fn start(dir: &Path) -> Self {
        let home = node_packages("test-s3", &["s3rver@3.7.1"]);
        let mut child = Command::new("node")
            .arg(home.join("node_modules/s3rver/bin/s3rver.js"))
            .args(["--no-vhost-buckets", "--address", "127.0.0.1", "--port", "0", "--configure-bucket", "team"])
            .arg("--directory")
            .arg(dir)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("node, as npm is there");
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        let listening = said.find_map(|line| line.unwrap().strip_prefix("S3rver listening on ").map(str::to_owned));
        // What it goes on to say must have a reader.
        std::thread::spawn(move || said.count());
        Self { child, address: format!("http://{}", listening.expect("it says where it listens")) }
    }

    /// A build up to `until` whose cache is `folder` of a bucket, asked for by `id` and its key.
    fn build(&self, w: &Workspace, until: &str, folder: &str, [id, key]: [&str; 2]) -> Ran {
        let mut command = w.xtask(&["build-torch", "--recipe", "standin", "--until", until]);
        command.args(["--cache", &format!("s3://{folder}"), "--cache-trust", "unsigned"]);
        command.envs([("AWS_ENDPOINT_URL", self.address.as_str()), ("AWS_REGION", "eu-north-1")]);
        Ran::of(command.envs([("AWS_ACCESS_KEY_ID", id), ("AWS_SECRET_ACCESS_KEY", key)]), w.path())
    }
}

#[test]
#[ignore = "needs ccache and npm"]
fn a_bucket_serves_another_machine_and_a_wrong_key_costs_a_warning() {
    let (first, second) = (machine(), machine());
    let files = tempfile::tempdir().unwrap();
    let s3 = S3::start(files.path());
    let pair = ["S3RVER", "S3RVER"];
    s3.build(&first, "compile", "team/torch", pair).exits(0).says("0 entries read");
    assert!(entries(&files.path().join("team/torch")).len() >= 18, "a manifest and a result for each object");
    s3.build(&second, "compile", "team/torch", pair).exits(0);
    let log = std::fs::read_to_string(work_folder(&second).join("ccache.shared.log")).unwrap();
    assert_eq!(log.lines().filter(|line| *line == "remote_storage_hit").count(), 9, "{log}");
    for (folder, pair, says) in [
        ("team/torch", ["another-id", "S3RVER"], "are not those that it takes"),
        ("none/torch", pair, "there is no such bucket"),
    ] {
        let ran = s3.build(&machine(), "canary", folder, pair).exits(0).says("the build goes on without it").says(says);
        assert!(!ran.stderr.contains("another-id"), "{}", ran.stderr);
    }
}

/// Puts another object under the name of f3's into the shared cache `cache`: what whoever can write there can do.
fn poison_entry(w: &Workspace, cache: &Path) {
    let prefix = w.write(
        "poison.sh",
        "#!/bin/sh\n\"$@\" || exit\nwhile [ $# -gt 0 ]; do [ \"$1\" = -o ] && printf poison >> \"$2\"; shift; done\n",
    );
    Command::new("chmod").arg("+x").arg(&prefix).status().unwrap();
    let work = work_folder(w);
    let at = work.join("src/build");
    let ninja =
        Command::new(work.join("deps/buildenv/bin/ninja")).args(["-t", "compdb"]).current_dir(&at).output().unwrap();
    let edges: serde_json::Value = serde_json::from_slice(&ninja.stdout).unwrap();
    let edge =
        edges.as_array().unwrap().iter().find(|e| e["output"].as_str().unwrap().contains("fill/f3.cpp.o")).unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", edge["command"].as_str().unwrap()]).current_dir(&at).env_clear();
    for (name, value) in [
        ("PATH", "/usr/local/bin:/usr/bin:/bin"),
        ("LANG", "C.UTF-8"),
        ("LC_ALL", "C.UTF-8"),
        ("SOURCE_DATE_EPOCH", "1738108800"),
        ("TORCHMILL_COMPILER_CACHE", "ccache"),
        ("CCACHE_CONFIGPATH", "/dev/null"),
        ("CCACHE_NOHASHDIR", "1"),
        ("CCACHE_COMPILERCHECK", "content"),
        ("CCACHE_DEPEND", "1"),
        ("CCACHE_RECACHE", "1"),
    ] {
        command.env(name, value);
    }
    command.env("CCACHE_PREFIX", prefix).env("CCACHE_DIR", w.path().join("ccache-of-a-stranger"));
    command.env("CCACHE_REMOTE_STORAGE", format!("file:{}", cache.display()));
    assert!(command.status().unwrap().success());
}

#[test]
#[ignore = "needs ccache"]
fn a_poisoned_entry_ends_the_build_and_is_made_anew_and_what_came_from_the_cache_goes() {
    let (first, second, third) = (machine(), machine(), machine());
    let cache = first.path().join("shared");
    std::fs::create_dir(&cache).unwrap();
    with_cache(&first, &cache, &["--cache-trust", "unsigned"]).exits(0);
    poison_entry(&first, &cache);
    let all = &["--cache-trust", "unsigned", "--cache-audit", "100"];
    let ran = with_cache(&second, &cache, all).exits(1).says("fill/f3.cpp.o of the shared cache");
    let ran = ran.says("whoever can write there answers for it").says("its entry was made anew");
    assert!(!ran.stderr.contains("» wheel"), "{}", ran.stderr);
    let left = std::fs::read_dir(second.store.join("v1/cache")).unwrap().flatten();
    assert!(left.into_iter().all(|e| !e.file_name().to_str().unwrap().starts_with("shared-")));
    with_cache(&third, &cache, all).exits(0).says("6 of them are compiled again");
    // Without the cache, everything is compiled here.
    build(&second, &[]).exits(0);
    let wheel = |w: &Workspace| std::fs::read(artifact(w, "wheel", ".whl")).unwrap();
    assert!(wheel(&second) == wheel(&third), "the same bytes");
}
