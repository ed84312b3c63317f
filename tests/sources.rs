//! Sources: every byte is judged by its digest, whatever the server does on the way.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::{Answer, Server, Workspace, locked, sha256};
use torchmill::event::Silent;
use torchmill::recipe::Coordinate;
use torchmill::source::unpack::Bounds;
use torchmill::source::{Fetcher, Want, git::archive};
use torchmill::store::Store;

/// What the recipe of a large source allows.
const BOUNDS: Bounds = Bounds { bytes: 16 << 30, members: 1_000_000 };

fn bytes(n: usize) -> Vec<u8> {
    (0..n as u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).take(n).collect()
}

fn want(url: &str, content: &[u8]) -> Want {
    Want {
        name: "thing".into(),
        coordinates: vec![url.parse().unwrap()],
        expected: Some((sha256(content), content.len() as u64)),
    }
}

fn fetch(store: &Store, want: &Want) -> torchmill::Result<Vec<torchmill::store::Blob>> {
    let fetcher = Fetcher { store, events: &Silent, offline: false, root: Path::new("/"), bounds: BOUNDS };
    fetcher.fetch_all(std::slice::from_ref(want))
}

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(Some(dir.path())).unwrap();
    (dir, store)
}

#[test]
fn a_cut_connection_is_resumed_where_it_stood() {
    let content = bytes(300_000);
    let server = Server::start([("/f", Answer::CutAfter(content.clone(), 130_000))]);
    let (_dir, store) = store();
    let blobs = fetch(&store, &want(&format!("{}/f", server.url), &content)).unwrap();
    assert_eq!(std::fs::read(&blobs[0].path).unwrap(), content);
    let ranges = server.ranges("/f");
    assert_eq!(ranges[0], None);
    assert!(ranges[1..].iter().all(|r| r.as_ref().is_some_and(|r| !r.starts_with("bytes=0"))), "{ranges:?}");
}

#[test]
fn a_server_without_ranges_is_asked_from_the_beginning() {
    let content = bytes(200_000);
    let server = Server::start([("/f", Answer::CutOnceNoRanges(content.clone(), 100_000))]);
    let (_dir, store) = store();
    let blobs = fetch(&store, &want(&format!("{}/f", server.url), &content)).unwrap();
    assert_eq!(std::fs::read(&blobs[0].path).unwrap(), content);
}

#[test]
fn a_download_goes_on_in_the_next_run() {
    let content = bytes(300_000);
    let (dir, store) = store();
    // The first server cuts and is then gone.
    let server = Server::start([("/f", Answer::CutAfter(content.clone(), 50_000))]);
    let w = want(&format!("{}/f", server.url), &content);
    let first = Fetcher { store: &store, events: &Silent, offline: false, root: dir.path(), bounds: BOUNDS };
    // Five attempts of 50 000 bytes do not reach 300 000.
    let e = first.fetch_all(std::slice::from_ref(&w)).unwrap_err();
    assert_eq!(e.code(), "fetch", "{e}");
    let blobs = first.fetch_all(&[w]).unwrap();
    assert_eq!(std::fs::read(&blobs[0].path).unwrap(), content);
    assert!(server.ranges("/f").contains(&Some("bytes=250000-".into())), "{:?}", server.ranges("/f"));
}

#[test]
fn what_no_digest_judges_does_not_go_on_in_the_next_run() {
    let (_dir, store) = store();
    let content = bytes(300_000);
    let server = Server::start([("/f", Answer::CutAfter(content.clone(), 50_000))]);
    let to_lock = Want { expected: None, ..want(&format!("{}/f", server.url), &content) };
    for _ in 0..2 {
        assert_eq!(fetch(&store, &to_lock).unwrap_err().code(), "fetch");
    }
    // Five attempts each. What a server has by now may be another file than the one that a part is there of.
    let ranges = server.ranges("/f");
    assert_eq!((ranges.len(), &ranges[5]), (10, &None), "{ranges:?}");
}

#[test]
fn wrong_bytes_are_refused_with_both_digests_and_kept_aside() {
    let (dir, store) = store();
    let right = bytes(1000);
    let mut wrong = right.clone();
    wrong[500] ^= 1;
    let server = Server::start([("/f", Answer::Ok(wrong.clone()))]);
    let e = fetch(&store, &want(&format!("{}/f", server.url), &right)).unwrap_err();
    assert_eq!((e.code(), e.exit()), ("digest", torchmill::Exit::World));
    assert!(e.what().contains(&sha256(&right)) && e.what().contains(&sha256(&wrong)), "{e}");
    let kept: Vec<_> = std::fs::read_dir(dir.path().join("v1/quarantine")).unwrap().flatten().collect();
    assert_eq!(std::fs::read(kept[0].path()).unwrap(), wrong);
    for bytes in [&right, &wrong] {
        assert!(store.blob(&sha256(bytes), 1000).unwrap().is_none());
    }
}

#[test]
fn the_next_coordinate_is_tried_when_one_fails() {
    let (_dir, store) = store();
    let content = bytes(5000);
    let mut wrong = content.clone();
    wrong[0] ^= 1;
    let server = Server::start([
        ("/gone", Answer::Status(404)),
        ("/wrong", Answer::Ok(wrong)),
        ("/right", Answer::Ok(content.clone())),
    ]);
    let mut w = want(&format!("{}/gone", server.url), &content);
    for path in ["wrong", "right"] {
        w.coordinates.push(format!("{}/{path}", server.url).parse().unwrap());
    }
    fetch(&store, &w).unwrap();
    assert_eq!(server.ranges("/gone").len(), 1, "a 404 is final");
}

#[test]
fn lies_about_the_length_do_no_harm() {
    let (_dir, store) = store();
    let content = bytes(1000);
    let server = Server::start([("/long", Answer::LongLie(content.clone(), 2000)), ("/endless", Answer::Endless)]);
    let e = fetch(&store, &want(&format!("{}/long", server.url), &content)).unwrap_err();
    assert!(e.what().contains("announces 2000 bytes where the lock says 1000"), "{e}");
    let e = fetch(&store, &want(&format!("{}/endless", server.url), &content)).unwrap_err();
    assert!(e.what().contains("more than the 1000 bytes"), "{e}");
    // What is there already comes to what a server announces.
    let server = Server::start([("/part", Answer::PartLie(content.clone(), 500))]);
    let e = fetch(&store, &want(&format!("{}/part", server.url), &content)).unwrap_err();
    assert_eq!(e.code(), "fetch", "{e}");
}

#[test]
#[cfg(unix)]
fn a_file_of_this_machine_has_an_end_and_is_no_larger_than_the_lock_says() {
    let (dir, store) = store();
    let content = bytes(1000);
    let [pipe, larger, right] = ["pipe", "larger", "right"].map(|name| dir.path().join(name));
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    // Of all its bytes none is on the disk.
    std::fs::File::create(&larger).unwrap().set_len(1 << 40).unwrap();
    std::fs::write(&right, &content).unwrap();
    for (path, says) in [
        (Path::new("/dev/zero"), "it is no regular file"),
        (pipe.as_path(), "it is no regular file"),
        (larger.as_path(), "more than the 1000 bytes"),
    ] {
        let e = fetch(&store, &want(&format!("file:{}", path.display()), &content)).unwrap_err();
        assert!(e.what().contains(says), "{}: {e}", path.display());
    }
    // What is somebody's own is not copied to where others may look.
    let e = fetch(&store, &want(&format!("file:{}", right.display()), &bytes(1001)[1..])).unwrap_err();
    assert!(e.code() == "digest" && e.what().contains(right.to_str().unwrap()), "{e}");
    assert!(!dir.path().join("v1/quarantine").exists());
    fetch(&store, &want(&format!("file:{}", right.display()), &content)).unwrap();
    assert_eq!(std::fs::read_dir(dir.path().join("v1/parts")).unwrap().count(), 0);
}

#[test]
fn a_passing_failure_is_asked_again() {
    let (_dir, store) = store();
    let content = bytes(1000);
    let server = Server::start([("/f", Answer::FailFirst(503, 2, content.clone()))]);
    fetch(&store, &want(&format!("{}/f", server.url), &content)).unwrap();
    assert_eq!(server.ranges("/f").len(), 3);
}

#[test]
fn a_download_that_moved_is_followed_and_one_that_never_arrives_is_told_with_its_address() {
    let content = bytes(1000);
    let server = Server::start([
        ("/moved", Answer::Moved("/f")),
        ("/f", Answer::Ok(content.clone())),
        ("/to", Answer::Moved("/fro")),
        ("/fro", Answer::Moved("/to")),
    ]);
    let (_dir, store) = store();
    let blobs = fetch(&store, &want(&format!("{}/moved", server.url), &content)).unwrap();
    assert_eq!(std::fs::read(&blobs[0].path).unwrap(), content);

    let w = Workspace::new();
    let address = format!("{}/to", server.url);
    w.write("recipes/x.toml", crate::support::recipe("").replace("file:uv.tar", &address));
    w.run(&["lock", "--recipe", "x"]).exits(3).says(&format!("the redirects from {address} never end"));
    // One try tells: another would end as this one did.
    assert!(server.ranges("/to").len() + server.ranges("/fro").len() <= 9);
    assert!(!w.path().join("recipes/x.lock").exists());
    let kept = ["blobs", "parts"].map(|kind| walkdir::WalkDir::new(w.store.join("v1").join(kind)));
    let kept = kept.into_iter().flatten().flatten().filter(|e| e.file_type().is_file());
    assert!(kept.map(|e| e.metadata().unwrap().len()).all(|size| size == 0), "something was kept");
}

#[test]
fn a_stalled_server_is_given_up_on() {
    let server = Server::start([("/f", Answer::Stall(b"beginning".to_vec()))]);
    let w = Workspace::new();
    w.write("recipes/x.toml", crate::support::recipe("").replace("file:uv.tar", &format!("{}/f", server.url)));
    let mut command = w.xtask(&["lock", "--recipe", "x"]);
    command.env("TORCHMILL_STALL_SECONDS", "1");
    let started = std::time::Instant::now();
    crate::support::Ran::of(&mut command, w.path()).exits(3).says("cannot be had from any of its coordinates");
    assert!(started.elapsed().as_secs() < 60);
}

#[test]
fn a_server_that_sends_a_byte_now_and_then_is_given_up_on() {
    let refs = "/repo/info/refs?service=git-upload-pack";
    let server = Server::start([("/f", Answer::Drip), ("/simple/thing/", Answer::Drip), (refs, Answer::Drip)]);
    let locked = |coordinate: &str| {
        let w = Workspace::new();
        w.write("recipes/x.toml", crate::support::recipe("").replace("file:uv.tar", coordinate));
        let mut command = w.xtask(&["lock", "--recipe", "x"]);
        command.env("TORCHMILL_STALL_SECONDS", "1").env("PIP_INDEX_URL", format!("{}/simple", server.url));
        crate::support::Ran::of(&mut command, w.path()).exits(3).says("bytes in 4 seconds")
    };
    let started = std::time::Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| locked(&format!("{}/f", server.url)).says("cannot be had from any of its coordinates"));
        scope.spawn(|| locked("pypi:thing/1.0/thing-1.0.tar.gz").says("a page of the index cannot be read"));
        scope.spawn(|| locked(&format!("git+{}/repo#{}", server.url, "a".repeat(40))));
    });
    assert!(started.elapsed().as_secs() < 90);
}

#[test]
fn offline_says_exactly_what_is_missing() {
    let (_dir, store) = store();
    let mut w = want("https://nowhere.invalid/f", b"x");
    w.name = "libfoo".into();
    let fetcher = Fetcher { store: &store, events: &Silent, offline: true, root: Path::new("/"), bounds: BOUNDS };
    let e = fetcher.fetch_all(&[w]).unwrap_err();
    assert_eq!(e.code(), "offline");
    for part in ["libfoo", &sha256(b"x"), "1 bytes", "https://nowhere.invalid/f"] {
        assert!(e.what().contains(part), "{e}");
    }
}

#[test]
fn a_debian_coordinate_goes_to_the_mirror_of_the_setting() {
    let content = bytes(777);
    let server = Server::start([("/mirror/pool/main/x/xx/xx_1%2B2%7E3.orig.tar.gz", Answer::Ok(content.clone()))]);
    let w = Workspace::new();
    w.write(
        "recipes/x.toml",
        crate::support::recipe("").replace("file:uv.tar", "debian:main/x/xx/xx_1+2~3.orig.tar.gz"),
    );
    let mut command = w.xtask(&["lock", "--recipe", "x"]);
    command.env("TORCHMILL_DEBIAN_MIRROR", format!("{}/mirror", server.url));
    crate::support::Ran::of(&mut command, w.path()).exits(0);
    assert!(std::fs::read_to_string(w.path().join("recipes/x.lock")).unwrap().contains(&sha256(&content)));
}

#[test]
fn a_pypi_coordinate_goes_to_the_index_that_pip_is_told_of_json_or_html() {
    let content = bytes(555);
    let json = r#"{"meta":{"api-version":"1.0"},"name":"thing","files":[{"filename":"thing-1.0.tar.gz","url":"../../files/thing-1.0.tar.gz","hashes":{}}]}"#;
    let html = r#"<html><a href="../../files/thing-1.0.tar.gz#sha256=00">thing-1.0.tar.gz</a></html>"#;
    for (kind, page) in [("application/vnd.pypi.simple.v1+json", json), ("text/html", html)] {
        let server = Server::start([
            ("/simple/thing/", Answer::Typed(kind, page.as_bytes().to_vec())),
            ("/files/thing-1.0.tar.gz", Answer::Ok(content.clone())),
        ]);
        let w = Workspace::new();
        w.write("recipes/x.toml", crate::support::recipe("").replace("file:uv.tar", "pypi:thing/1.0/thing-1.0.tar.gz"));
        let mut command = w.xtask(&["lock", "--recipe", "x"]);
        command.env("PIP_INDEX_URL", format!("{}/simple", server.url));
        crate::support::Ran::of(&mut command, w.path()).exits(0);
        assert!(std::fs::read_to_string(w.path().join("recipes/x.lock")).unwrap().contains(&sha256(&content)));
    }
}

#[test]
fn a_crate_coordinate_comes_through_cargo() {
    // `hex` is a dependency of this program, so cargo has it in its cache, and may be offline.
    let version = include_str!("../Cargo.lock")
        .split("name = \"hex\"\nversion = \"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap()
        .to_owned();
    let (_dir, store) = store();
    let w = Want {
        name: "hex".into(),
        coordinates: vec![format!("crate:hex/{version}").parse::<Coordinate>().unwrap()],
        expected: None,
    };
    let blobs = fetch(&store, &w).unwrap();
    let locked = include_str!("../Cargo.lock")
        .split("name = \"hex\"\n")
        .nth(1)
        .unwrap()
        .split("checksum = \"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap()
        .to_owned();
    assert_eq!(blobs[0].sha256, locked);
}

// --- git -----------------------------------------------------------------------------------------

fn git(dir: &Path, args: &[&str]) -> String {
    let out = Command::new("git")
        .args([
            "-c",
            "user.name=t",
            "-c",
            "user.email=t@t",
            "-c",
            "protocol.file.allow=always",
            "-c",
            "init.defaultBranch=main",
        ])
        .args(args)
        .current_dir(dir)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .unwrap();
    assert!(out.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

/// Repositories `outer` → `middle` → `inner`, by relative submodule URLs. Returns outer's commit.
fn nested_repositories(dir: &Path) -> String {
    for (name, sub) in [("inner", None), ("middle", Some("inner")), ("outer", Some("middle"))] {
        let repo = dir.join(name);
        std::fs::create_dir(&repo).unwrap();
        git(&repo, &["init", "-q"]);
        std::fs::write(repo.join(format!("{name}.txt")), name).unwrap();
        if let Some(sub) = sub {
            git(&repo, &["submodule", "--quiet", "add", &format!("../{sub}"), &format!("deps/{sub}")]);
        }
        git(&repo, &["add", "."]);
        git(&repo, &["commit", "-qm", name]);
    }
    git(&dir.join("outer"), &["rev-parse", "HEAD"])
}

fn names_in(blob: &Path) -> Vec<String> {
    let mut archive = tar::Archive::new(std::fs::File::open(blob).unwrap());
    archive.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string()).collect()
}

const NESTED: [&str; 5] = [
    ".gitmodules",
    "deps/middle/.gitmodules",
    "deps/middle/deps/inner/inner.txt",
    "deps/middle/middle.txt",
    "outer.txt",
];

#[test]
fn a_git_commit_comes_with_its_nested_submodules_and_always_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let commit = nested_repositories(dir.path());
    let url = format!("git+file://{}/outer#{commit}", dir.path().display());
    let mut digests = Vec::new();
    for _ in 0..2 {
        let (_d, store) = store();
        let w = Want { name: "outer".into(), coordinates: vec![url.parse().unwrap()], expected: None };
        let blobs = fetch(&store, &w).unwrap();
        assert_eq!(names_in(&blobs[0].path), NESTED);
        digests.push(blobs[0].sha256.clone());
    }
    assert_eq!(digests[0], digests[1]);
}

#[test]
fn several_that_want_one_repository_at_once_make_it_in_turn() {
    let dir = tempfile::tempdir().unwrap();
    nested_repositories(dir.path());
    let commit = git(&dir.path().join("inner"), &["rev-parse", "HEAD"]);
    let url = format!("file://{}/inner", dir.path().display());
    let (mirrors, id) = (dir.path().join("mirrors"), sha256(url.as_bytes())[..24].to_owned());
    std::fs::create_dir(&mirrors).unwrap();
    let held = locked(&mirrors.join(format!("{id}.lock")));
    let get = || {
        let mut tar = Vec::new();
        archive(&url, &commit, &mirrors, BOUNDS, &mut tar, &Silent).map(|()| tar)
    };
    std::thread::scope(|scope| {
        let all = [0; 3].map(|_| scope.spawn(get));
        std::thread::sleep(Duration::from_millis(300));
        assert!(!mirrors.join(&id).exists(), "it was begun while somebody else was at it");
        drop(held);
        let all = all.map(|one| one.join().unwrap().unwrap());
        assert!(all[0].len() > 1000 && all.iter().all(|tar| *tar == all[0]));
    });
    // Nobody is waited for where it is there.
    let _held = locked(&mirrors.join(format!("{id}.lock")));
    get().unwrap();
}

#[test]
fn a_commit_that_is_not_there_is_named() {
    let dir = tempfile::tempdir().unwrap();
    nested_repositories(dir.path());
    let missing = "0123456789012345678901234567890123456789";
    let (_d, store) = store();
    let w = Want {
        name: "outer".into(),
        coordinates: vec![format!("git+file://{}/outer#{missing}", dir.path().display()).parse().unwrap()],
        expected: None,
    };
    let e = fetch(&store, &w).unwrap_err();
    assert!(e.what().contains(missing), "{e}");
}

#[test]
fn a_git_server_over_http_gives_the_same_bytes_as_the_files() {
    let dir = tempfile::tempdir().unwrap();
    let commit = nested_repositories(dir.path());
    let server = GitServer::start(dir.path());
    let get = |url: String| {
        let (d, store) = store();
        let w = Want { name: "outer".into(), coordinates: vec![url.parse().unwrap()], expected: None };
        let blobs = fetch(&store, &w).unwrap();
        (names_in(&blobs[0].path), blobs[0].sha256.clone(), d)
    };
    let (names, over_http, _a) = get(format!("git+{}/outer#{commit}", server.url));
    assert_eq!(names, NESTED);
    let (_, from_files, _b) = get(format!("git+file://{}/outer#{commit}", dir.path().display()));
    assert_eq!(over_http, from_files);
}

/// An object of git's, made of what git reads from its standard input.
fn git_object(dir: &Path, args: &[&str], input: &str) -> String {
    let mut command = Command::new("git");
    command.args(args).current_dir(dir).stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success(), "git {args:?}");
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

#[test]
fn a_git_tree_of_a_hundred_million_files_ends_at_the_bound() {
    let dir = tempfile::tempdir().unwrap();
    let repo = dir.path().join("bomb");
    std::fs::create_dir(&repo).unwrap();
    git(&repo, &["init", "-q"]);
    // Each level has ten names for the one below.
    let mut tree = git_object(&repo, &["hash-object", "-w", "--stdin"], &"x".repeat(1000));
    for level in 0..8 {
        let kind = if level == 0 { "100644 blob" } else { "040000 tree" };
        let names: String = (0..10).map(|n| format!("{kind} {tree}\tf{n}\n")).collect();
        tree = git_object(&repo, &["mktree"], &names);
    }
    let commit = git(&repo, &["commit-tree", &tree, "-m", "bomb"]);
    git(&repo, &["update-ref", "refs/heads/main", &commit]);
    let (_dir, store) = store();
    let want = Want {
        name: "bomb".into(),
        coordinates: vec![format!("git+file://{}#{commit}", repo.display()).parse().unwrap()],
        // As a lock has it that was made of something smaller.
        expected: Some(("0".repeat(64), 64 << 10)),
    };
    let e = fetch(&store, &want).unwrap_err();
    assert!(e.what().contains("has more than 128 files or 65536 bytes"), "{e}");
    let link = git_object(&repo, &["hash-object", "-w", "--stdin"], &"x".repeat(5000));
    let tree = git_object(&repo, &["mktree"], &format!("120000 blob {link}\tl\n"));
    let commit = git(&repo, &["commit-tree", &tree, "-m", "link"]);
    git(&repo, &["update-ref", "refs/heads/main", &commit]);
    let long = Want { coordinates: vec![format!("git+file://{}#{commit}", repo.display()).parse().unwrap()], ..want };
    let e = fetch(&store, &long).unwrap_err();
    assert!(e.what().contains("'l' has 5000 bytes; at most 4096 are read"), "{e}");
}

#[test]
fn a_git_commit_is_within_its_recipes_limits_whatever_its_lock_says() {
    let dir = tempfile::tempdir().unwrap();
    let commit = nested_repositories(dir.path());
    let (_dir, store) = store();
    let coordinate = format!("git+file://{}/outer#{commit}", dir.path().display());
    for expected in [None, Some(("0".repeat(64), 1 << 40))] {
        let want = Want { name: "outer".into(), coordinates: vec![coordinate.parse().unwrap()], expected };
        for (bytes, members) in [(1 << 30, 4), (20, 1000)] {
            let bounds = Bounds { bytes, members };
            let fetcher = Fetcher { store: &store, events: &Silent, offline: false, root: Path::new("/"), bounds };
            let e = fetcher.fetch_all(std::slice::from_ref(&want)).unwrap_err();
            assert!(e.what().contains(&format!("has more than {members} files or {bytes} bytes")), "{e}");
        }
    }
}

#[test]
fn all_that_stands_in_a_git_tree_has_bounds() {
    let dir = tempfile::tempdir().unwrap();
    let repo = dir.path().join("bomb");
    std::fs::create_dir(&repo).unwrap();
    git(&repo, &["init", "-q"]);
    let refused = |commit: &str, locked: Option<u64>| {
        git(&repo, &["update-ref", "refs/heads/main", commit]);
        let (_dir, store) = store();
        let want = Want {
            name: "bomb".into(),
            coordinates: vec![format!("git+file://{}#{commit}", repo.display()).parse().unwrap()],
            expected: locked.map(|size| ("0".repeat(64), size)),
        };
        fetch(&store, &want).unwrap_err().what().to_owned()
    };
    let tree = |entries: &str| git_object(&repo, &["mktree"], entries);
    let commit = |tree: &str| git(&repo, &["commit-tree", tree, "-m", "bomb"]);

    // 10¹² folders without a file.
    let mut folders = tree("");
    for _ in 0..12 {
        folders = tree(&(0..10).map(|n| format!("040000 tree {folders}\tf{n}\n")).collect::<String>());
    }
    let e = refused(&commit(&folders), Some(64 << 10));
    assert!(e.contains("has more than 8192 files, folders and submodules"), "{e}");

    let links: String = (0..1001).map(|n| format!("160000 commit {}\ts{n}\n", "1".repeat(40))).collect();
    let e = refused(&commit(&tree(&links)), None);
    assert!(e.contains("is one of more than 1000 submodules"), "{e}");

    let file = git_object(&repo, &["hash-object", "-w", "--stdin"], "x");
    let e = refused(&commit(&tree(&format!("100644 blob {file}\t{}\n", "n".repeat(4097)))), None);
    assert!(e.contains("has a path of more than 4096 bytes or 64 folders"), "{e}");
    let mut deep = tree(&format!("100644 blob {file}\tf\n"));
    for _ in 0..64 {
        deep = tree(&format!("040000 tree {deep}\td\n"));
    }
    let e = refused(&commit(&deep), None);
    assert!(e.contains("has a path of more than 4096 bytes or 64 folders"), "{e}");

    // Names of 4000 bytes: so many that their paths, and so many that their tree is too large.
    let names = |count: usize| (0..count).map(|n| format!("100644 blob {file}\t{n:04000}\n")).collect::<String>();
    let long = tree(&names(3000));
    let e = refused(&commit(&tree(&(0..8).map(|n| format!("040000 tree {long}\tf{n}\n")).collect::<String>())), None);
    assert!(e.contains("or 67108864 bytes of paths"), "{e}");
    let e = refused(&commit(&tree(&names(4500))), None);
    assert!(e.contains("the tree ") && e.contains("bytes; at most 16777216 are read"), "{e}");

    let wordy = format!("tree {deep}\nauthor t <t@t> 0 +0000\ncommitter t <t@t> 0 +0000\n\n{}", "x".repeat(17 << 20));
    let e = refused(&git_object(&repo, &["hash-object", "-t", "commit", "-w", "--stdin"], &wordy), None);
    assert!(e.contains("the commit has ") && e.contains("at most 16777216 are read"), "{e}");
}

/// The submodules' URLs are relative, so they are redirected as the repository itself is.
fn fetched_through(url: &str, commit: &str) -> torchmill::Result<(Vec<String>, String)> {
    let (_dir, store) = store();
    let w = Want {
        name: "outer".into(),
        coordinates: vec![format!("git+{url}/outer#{commit}").parse().unwrap()],
        expected: None,
    };
    fetch(&store, &w).map(|blobs| (names_in(&blobs[0].path), blobs[0].sha256.clone()))
}

#[test]
fn a_repository_that_moved_to_another_path_or_host_is_followed_there() {
    let dir = tempfile::tempdir().unwrap();
    let commit = nested_repositories(dir.path());
    let there = GitServer::start(dir.path());
    let (_, straight) = fetched_through(&there.url, &commit).unwrap();
    for status in [301, 302, 307, 308] {
        // Renamed, as a forge does it, and then moved to another host.
        let elsewhere = there.url.clone();
        let renamed = GitServer::redirecting(dir.path(), status, move |target| {
            let rest = target.strip_prefix("/old/")?;
            Some(if rest.starts_with("outer") { format!("{elsewhere}/{rest}") } else { format!("/{rest}") })
        });
        let (names, digest) = fetched_through(&format!("{}/old", renamed.url), &commit).unwrap();
        assert_eq!((names.as_slice(), &digest), (NESTED.map(str::to_owned).as_slice(), &straight), "HTTP {status}");
        // Only what asks for the references is sent on; the rest goes to where that ended.
        let posts: Vec<_> = renamed.requests().into_iter().filter(|r| r.method == "POST").collect();
        assert!(posts.iter().all(|r| !r.target.starts_with("/old/")), "{posts:?}");
        assert!(!posts.is_empty() && there.requests().iter().any(|r| r.method == "POST"));
    }
}

#[test]
fn a_name_and_password_are_not_carried_to_another_server() {
    let dir = tempfile::tempdir().unwrap();
    let commit = nested_repositories(dir.path());
    let there = GitServer::start(dir.path());
    let elsewhere = there.url.clone();
    let here = GitServer::redirecting(dir.path(), 301, move |target| {
        Some(format!("{elsewhere}/{}", target.strip_prefix("/private/")?))
    });
    let with_password = here.url.replace("http://", "http://me:secret@");
    let (_, digest) = fetched_through(&format!("{with_password}/private"), &commit).unwrap();
    assert_eq!(digest, fetched_through(&there.url, &commit).unwrap().1);
    assert!(here.requests()[0].authorization.is_some(), "the server that it is for was not told the password");
    assert!(there.requests().iter().all(|r| r.authorization.is_none()), "{:?}", there.requests());
}

#[test]
fn a_redirect_that_leads_nowhere_is_told_and_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let commit = nested_repositories(dir.path());
    let told = |to: fn(&str) -> Option<String>, what: &str| {
        let server = GitServer::redirecting(dir.path(), 301, to);
        let (kept, store) = store();
        let w = Want {
            name: "outer".into(),
            coordinates: vec![format!("git+{}/outer#{commit}", server.url).parse().unwrap()],
            expected: None,
        };
        let e = fetch(&store, &w).unwrap_err();
        assert!(e.to_string().contains(what) || e.what().contains(what), "no '{what}' in {e}");
        let blobs = std::fs::read_dir(kept.path().join("v1/blobs")).into_iter().flatten().count();
        assert_eq!(blobs, 0, "something was kept");
        server.requests().len()
    };
    // Two addresses that send us to each other; one that sends us to ever new ones.
    told(
        |t| Some(t.replace("/outer/", "/other/")).filter(|n| n != t).or(Some(t.replace("/other/", "/outer/"))),
        "never end",
    );
    let asked = told(|t| Some(t.replacen("/outer/", "/outer/x/", 1)), "never end");
    assert!(asked <= 3 * 22, "asked {asked} times");
    told(|t| t.contains("info/refs").then(|| "/outer/HEAD".into()), "does not lead to a repository's info/refs");
    told(|_| Some("file:///etc/passwd".into()), "no address of http");
}

/// What a client asked for.
#[derive(Debug, Clone)]
struct Asked {
    method: String,
    target: String,
    authorization: Option<String>,
}

type Redirect = Box<dyn Fn(&str) -> Option<String> + Send>;

/// git's own HTTP backend, behind a few lines that speak CGI (gitprotocol-http).
pub struct GitServer {
    pub url: String,
    asked: std::sync::Arc<std::sync::Mutex<Vec<Asked>>>,
}

impl GitServer {
    pub fn start(root: &Path) -> Self {
        Self::redirecting(root, 301, |_| None)
    }

    fn requests(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// A server that sends some targets elsewhere; as forges do, it answers a POST to them with 400.
    fn redirecting(root: &Path, status: u16, to: impl Fn(&str) -> Option<String> + Send + 'static) -> Self {
        use std::io::{BufRead, BufReader, Read, Write};
        let to: Redirect = Box::new(to);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let root = root.to_owned();
        let asked = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let log = std::sync::Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                let mut words = line.split(' ');
                let (method, target) = (words.next().unwrap().to_owned(), words.next().unwrap().to_owned());
                let (mut length, mut kind, mut chunked) = (0usize, String::new(), false);
                let mut authorization = None;
                loop {
                    let mut header = String::new();
                    reader.read_line(&mut header).unwrap();
                    let Some((name, value)) = header.trim().split_once(':') else { break };
                    match name.to_lowercase().as_str() {
                        "content-length" => length = value.trim().parse().unwrap(),
                        "content-type" => kind = value.trim().to_owned(),
                        "transfer-encoding" => chunked = value.contains("chunked"),
                        "authorization" => authorization = Some(value.trim().to_owned()),
                        _ => {}
                    }
                }
                assert!(!chunked, "the client sends a length");
                let mut body = vec![0; length];
                reader.read_exact(&mut body).unwrap();
                log.lock().unwrap().push(Asked { method: method.clone(), target: target.clone(), authorization });
                if let Some(location) = to(&target) {
                    let head = if method == "GET" {
                        format!("HTTP/1.1 {status} Moved\r\nLocation: {location}\r\n")
                    } else {
                        "HTTP/1.1 400 Bad Request\r\n".to_owned()
                    };
                    let mut stream = stream;
                    write!(stream, "{head}Connection: close\r\nContent-Length: 0\r\n\r\n").unwrap();
                    continue;
                }
                let (path, query) = target.split_once('?').unwrap_or((&target, ""));
                let mut child =
                    Command::new("git")
                        .arg("http-backend")
                        .env("GIT_PROJECT_ROOT", &root)
                        .env("GIT_HTTP_EXPORT_ALL", "1")
                        .env("REQUEST_METHOD", &method)
                        .env(
                            "PATH_INFO",
                            path.replacen("/outer/", "/outer/.git/", 1)
                                .replacen("/middle/", "/middle/.git/", 1)
                                .replacen("/inner/", "/inner/.git/", 1),
                        )
                        .env("QUERY_STRING", query)
                        .env("CONTENT_TYPE", kind)
                        .env("CONTENT_LENGTH", length.to_string())
                        .env("GIT_CONFIG_COUNT", "1")
                        .env("GIT_CONFIG_KEY_0", "safe.directory")
                        .env("GIT_CONFIG_VALUE_0", "*")
                        .stdin(std::process::Stdio::piped())
                        .stdout(std::process::Stdio::piped())
                        .spawn()
                        .unwrap();
                child.stdin.take().unwrap().write_all(&body).unwrap();
                let out = child.wait_with_output().unwrap().stdout;
                let split = out.windows(4).position(|w| w == b"\r\n\r\n").unwrap_or(0);
                let head = String::from_utf8_lossy(&out[..split]).into_owned();
                let status = head.lines().find_map(|l| l.strip_prefix("Status: ")).unwrap_or("200 OK").to_owned();
                let content = &out[(split + 4).min(out.len())..];
                let mut stream = stream;
                write!(
                    stream,
                    "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n{head}\r\n\r\n",
                    content.len()
                )
                .unwrap();
                stream.write_all(content).unwrap();
            }
        });
        Self { url, asked }
    }
}
