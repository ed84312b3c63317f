//! `mirror`: real pip, uv, pypiserver and devpi on loopback, and what must survive: two adds at once,
//! kill -9, other people's files, clients that misbehave.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Ran, SmallDisk, Workspace, browser, locked, python_environment, recipe, root, sha256};
use base64::Engine;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// A wheel made by hand: a module, METADATA, RECORD.
pub(crate) fn wheel(dir: &Path, name: &str, version: &str, more: &str) -> PathBuf {
    build_wheel(dir, name, version, &format!("Requires-Python: >=3.8\n{more}"), |_| {})
}

fn build_wheel(
    dir: &Path,
    name: &str,
    version: &str,
    headers: &str,
    edit: impl Fn(&mut BTreeMap<String, Vec<u8>>),
) -> PathBuf {
    let info = format!("{name}-{version}.dist-info");
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::from([
        (format!("{name}/__init__.py"), format!("version = '{version}'\n").into_bytes()),
        (
            format!("{info}/METADATA"),
            format!("Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{headers}\n").into_bytes(),
        ),
        (
            format!("{info}/WHEEL"),
            b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n".to_vec(),
        ),
    ]);
    let digest = |b: &[u8]| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(Sha256::digest(b));
    let mut record: String = files.iter().map(|(n, b)| format!("{n},sha256={},{}\n", digest(b), b.len())).collect();
    record.push_str(&format!("{info}/RECORD,,\n"));
    files.insert(format!("{info}/RECORD"), record.into_bytes());
    edit(&mut files);
    std::fs::create_dir_all(dir).unwrap();
    let path = dir.join(format!("{name}-{version}-py3-none-any.whl"));
    let mut zip = zip::ZipWriter::new(std::fs::File::create(&path).unwrap());
    for (name, bytes) in &files {
        let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
        zip.start_file(name.as_str(), options).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap();
    path
}

fn mirror(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_torchmill"));
    command.arg("mirror").args(args).current_dir(root()).env("NO_COLOR", "1");
    for variable in ["TWINE_PASSWORD", "TORCHMILL_UPLOAD_PASSWORD", "TORCHMILL_UPLOAD_TOKEN", "NETRC"] {
        command.env_remove(variable);
    }
    command
}

fn run(dir: &Path, args: &[&str]) -> Ran {
    Ran::of(mirror(args).env("HOME", dir), dir)
}

fn s(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A server that ends with the test.
struct Server {
    child: Child,
    url: String,
    log: Option<std::thread::JoinHandle<String>>,
}

impl Server {
    fn start(index: &Path, more: &[&str]) -> Self {
        let mut child = mirror(&[&["serve", "--index", s(index), "--port", "0"], more].concat())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let log = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = stderr.read_to_string(&mut text);
            text
        });
        assert!(url.starts_with("http://"), "{url}");
        Self { child, url: url.trim().trim_end_matches('/').to_owned(), log: Some(log) }
    }

    fn address(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    /// Asks it to end, which it does in good order and in time, and returns its access log.
    fn stop(mut self) -> String {
        self.ends(0);
        self.log.take().unwrap().join().unwrap()
    }

    /// SIGTERM ends it within ten seconds, with this code.
    #[track_caller]
    fn ends(&mut self, code: i32) {
        succeeds(Command::new("kill").args(["-TERM", &self.child.id().to_string()]));
        let asked = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(asked.elapsed() < Duration::from_secs(10), "it goes on after SIGTERM");
            std::thread::sleep(Duration::from_millis(20));
        };
        assert_eq!(status.code(), Some(code), "{status}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a request as it stands and returns status, headers and body.
fn raw(address: &str, request: &[u8]) -> (u16, String, Vec<u8>) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(40))).unwrap();
    let _ = stream.write_all(request);
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    let at = bytes.windows(4).position(|w| w == b"\r\n\r\n").unwrap_or(bytes.len());
    let head = String::from_utf8_lossy(&bytes[..at]).to_lowercase();
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
    (status, head, bytes.get(at + 4..).unwrap_or_default().to_vec())
}

fn get(server: &Server, path: &str, headers: &str) -> (u16, String, Vec<u8>) {
    ask(server, "GET", path, headers)
}

fn ask(server: &Server, method: &str, path: &str, headers: &str) -> (u16, String, Vec<u8>) {
    let request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n");
    raw(server.address(), request.as_bytes())
}

/// The clients and servers under test.
fn clients() -> PathBuf {
    let packages = ["pip==25.3", "uv==0.9.11", "pypiserver==2.4.0", "devpi-server==6.17.0", "poetry==2.2.1"];
    python_environment("test-clients", &packages)
}

/// A program of the clients' environment, without the user's own settings.
fn client(env: &Path, program: &str, home: &Path) -> Command {
    let mut command = Command::new(env.join("bin").join(program));
    command
        .env_clear()
        .env("PATH", format!("{}:/usr/bin:/bin", env.join("bin").display()))
        .env("HOME", home)
        .env("LC_ALL", "C.UTF-8")
        .env("PIP_CONFIG_FILE", "/dev/null")
        .env("PIP_DISABLE_PIP_VERSION_CHECK", "1")
        .env("UV_NO_CONFIG", "1");
    command
}

#[track_caller]
fn succeeds(command: &mut Command) -> String {
    let out = command.output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{command:?}:\n{text}");
    text
}

#[test]
fn a_wheel_is_published_once_and_never_changes() {
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join("index");
    let a = wheel(&dir.path().join("a"), "demo", "1.0", "");
    let add = |w: &Path| run(dir.path(), &["add", "--index", s(&index), s(w)]);
    add(&a).exits(0).says("published");
    add(&a).exits(0).says("already there, the same bytes");
    let other = wheel(&dir.path().join("b"), "demo", "1.0", "Summary: other bytes\n");
    add(&other).exits(2).says("is published with the SHA-256").says(&sha256(&std::fs::read(&a).unwrap()));
    run(dir.path(), &["check", "--index", s(&index)]).exits(0).says("1 files, 0 of 0 findings serious");
    // Of a set with one that is refused nothing is published, and no file stays.
    let new = wheel(&dir.path().join("b"), "demo", "1.1", "");
    run(dir.path(), &["add", "--index", s(&index), s(&new), s(&other)]).exits(2).says("is published with the SHA-256");
    run(dir.path(), &["check", "--index", s(&index)]).exits(0).says("1 files, 0 of 0 findings serious");

    let page: Value = serde_json::from_slice(&std::fs::read(index.join("simple/demo/index.json")).unwrap()).unwrap();
    assert_eq!(page["meta"]["api-version"], "1.1");
    assert_eq!(page["versions"], serde_json::json!(["1.0"]));
    let file = &page["files"][0];
    assert_eq!(file["requires-python"], ">=3.8");
    assert_eq!(file["size"], std::fs::metadata(&a).unwrap().len());
    assert_eq!(file["yanked"], false);
    assert_eq!(file["core-metadata"], file["dist-info-metadata"]);
    let html = std::fs::read_to_string(index.join("simple/demo/index.html")).unwrap();
    assert!(html.contains("data-requires-python=\"&gt;=3.8\"") && html.contains("#sha256="), "{html}");

    // A removed release stays taken: only the same bytes may come back.
    run(dir.path(), &["remove", "--index", s(&index), "demo-1.0-py3-none-any.whl", "--reason", "a mistake"]).exits(0);
    add(&other).exits(2).says("was removed at").says("a mistake");
    add(&a).exits(0).says("published");
    run(dir.path(), &["remove", "--index", s(&index), "demo-1.0-py3-none-any.whl", "--reason", "a mistake"]).exits(0);
    run(dir.path(), &["yank", "--index", s(&index), "demo-1.0-py3-none-any.whl"]).exits(2).says("it was removed");
    run(dir.path(), &["check", "--index", s(&index)]).exits(0).says("0 files");
}

#[test]
#[cfg(unix)]
fn only_plain_files_of_the_folder_are_published_beside_a_wheel() {
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join("index");
    let good = wheel(&dir.path().join("good"), "demo", "1.0", "");
    let secret = dir.path().join("secret");
    std::fs::write(&secret, "PRIVATE KEY MATERIAL").unwrap();
    let stem = s(&good).trim_end_matches(".whl").to_owned();
    let report = PathBuf::from(format!("{stem}.validate.html"));
    std::os::unix::fs::symlink(&secret, &report).unwrap();
    let add = |what: &Path| run(dir.path(), &["add", "--index", s(&index), s(what)]);
    add(&good).exits(2).says("would be published with the wheel beside it, and is a symbolic link");
    std::fs::remove_file(&report).unwrap();
    let pipe = format!("{stem}.cdx.json");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    add(&good).exits(2).says("would be published with the wheel beside it, and is no regular file");
    std::fs::remove_file(&pipe).unwrap();
    let device = dir.path().join("zero-1.0-py3-none-any.whl");
    std::os::unix::fs::symlink("/dev/zero", &device).unwrap();
    add(&device).exits(2).says("it is no regular file");
    assert!(!index.join("simple/demo").exists());
    std::fs::write(&report, "<html>").unwrap();
    add(&good).exits(0);
}

#[test]
fn what_lies_beside_a_published_wheel_is_not_replaced_by_what_lies_beside_another() {
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join("index");
    let w = wheel(&dir.path().join("a"), "demo", "1.0", "");
    // The last `.whl` alone ends the name: what comes before it is a tag.
    let other = dir.path().join("b/demo-1.0-py3-none-any.whl.whl");
    let made = wheel(&dir.path().join("b"), "demo", "1.0", "Summary: another\n");
    std::fs::rename(&made, &other).unwrap();
    for (folder, text) in [("a", "{}"), ("b", "{\"another\": 1}")] {
        std::fs::write(dir.path().join(folder).join("demo-1.0-py3-none-any.manifest.json"), text).unwrap();
    }
    run(dir.path(), &["add", "--index", s(&index), s(&w)]).exits(0);
    run(dir.path(), &["add", "--index", s(&index), s(&other)]).exits(0);
    let manifest = index.join("files/demo/demo-1.0-py3-none-any.manifest.json");
    assert_eq!(std::fs::read_to_string(manifest).unwrap(), "{}");
    run(dir.path(), &["check", "--index", s(&index)]).exits(0).says("2 files, 0 of 0");
}

#[test]
fn what_may_not_be_published_is_refused_and_nothing_stays() {
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join("index");
    let good = wheel(&dir.path().join("good"), "demo", "1.0", "");
    let refuse = |path: &Path, why: &str| {
        // Together with a good one: all, or none.
        run(dir.path(), &["add", "--index", s(&index), s(&good), s(path)])
            .exits(2)
            .says(why)
            .says(path.file_name().unwrap().to_str().unwrap());
        assert!(!index.join("simple/demo").exists());
    };
    let text = dir.path().join("demo-3.0-py3-none-any.whl");
    std::fs::write(&text, "no zip").unwrap();
    refuse(&text, "no readable wheel");
    let name = dir.path().join("demo.whl");
    std::fs::copy(&good, &name).unwrap();
    refuse(&name, "PEP 427");
    let renamed = dir.path().join("demo-2.0-py3-none-any.whl");
    std::fs::copy(&good, &renamed).unwrap();
    refuse(&renamed, "its METADATA says Version 1.0");
    let lies = build_wheel(&dir.path().join("lies"), "demo", "4.0", "", |files| {
        files.insert("demo/__init__.py".into(), b"other".to_vec());
    });
    refuse(&lies, "RECORD");
    let cut = dir.path().join("demo-5.0-py3-none-any.whl");
    let bytes = std::fs::read(&good).unwrap();
    std::fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    refuse(&cut, "no readable wheel");
    refuse(&dir.path().join("demo-6.0-py3-none-any.whl"), "there is no such file");

    let foreign = dir.path().join("foreign");
    std::fs::create_dir_all(foreign.join("simple")).unwrap();
    run(dir.path(), &["add", "--index", s(&foreign), s(&good)]).exits(2).says("was not made by torchmill");
    run(dir.path(), &["check", "--index", s(dir.path())]).exits(2).says("is no index");
}

#[test]
fn adds_at_once_and_adds_that_are_killed_leave_a_whole_index() {
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join("index");
    let first = wheel(&dir.path().join("w"), "demo", "0.1", "");
    run(dir.path(), &["add", "--index", s(&index), s(&first)]).exits(0);
    let wheels: Vec<PathBuf> = (1..=12).map(|i| wheel(&dir.path().join("w"), "demo", &format!("1.{i}"), "")).collect();
    let children: Vec<Child> =
        wheels.iter().map(|w| mirror(&["add", "--quiet", "--index", s(&index), s(w)]).spawn().unwrap()).collect();
    // A reader in between sees a whole page each time.
    let page = index.join("simple/demo/index.json");
    let mut seen = 0;
    for mut child in children {
        while child.try_wait().unwrap().is_none() {
            let value: Value = serde_json::from_slice(&std::fs::read(&page).unwrap()).expect("a whole page");
            let files = value["files"].as_array().unwrap().len();
            assert!(files >= seen, "a file went away");
            seen = files;
        }
        assert!(child.wait().unwrap().success());
    }
    run(dir.path(), &["check", "--index", s(&index)]).exits(0).says("13 files, 0 of 0");

    for i in 0..15u64 {
        let w = wheel(&dir.path().join("w"), "demo", &format!("2.{i}"), "");
        let mut child = mirror(&["add", "--quiet", "--index", s(&index), s(&w)]).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(2 + 3 * i));
        let _ = child.kill();
        let _ = child.wait();
        let checked = run(dir.path(), &["check", "--index", s(&index), "--json"]);
        let json: Value = serde_json::from_str(&checked.stdout).unwrap();
        // HTML that is older than its JSON is the one thing that a kill may leave, until the next add.
        for f in json["findings"].as_array().unwrap() {
            let what = f["what"].as_str().unwrap();
            assert!(what.contains("no page names it") || what.contains("older than the JSON"), "{json}");
        }
        run(dir.path(), &["add", "--index", s(&index), s(&w)]).exits(0);
        let json: Value =
            serde_json::from_str(&run(dir.path(), &["check", "--index", s(&index), "--json"]).exits(0).stdout).unwrap();
        assert_eq!(json["ok"], true);
    }
}

#[test]
#[cfg(unix)]
fn who_waits_for_an_index_that_is_taken_away_waits_for_the_one_that_is_begun_in_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join("index");
    let w = wheel(&dir.path().join("w"), "demo", "1.0", "");
    // An index that somebody begins, and is at.
    let begun = || {
        torchmill::mirror::Index::open_or_create(&index).unwrap();
        locked(&index.join(".lock"))
    };
    let waiting = || {
        let mut add = mirror(&["add", "--index", s(&index), s(&w)]);
        let mut child = add.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        assert!(said.by_ref().any(|line| line.contains("waiting for another change of")), "it did not wait");
        (child, said)
    };
    let first = begun();
    let (mut child, said) = waiting();
    // As whoever publishes nothing in it does.
    std::fs::remove_dir_all(&index).unwrap();
    let second = begun();
    drop(first);
    std::thread::sleep(Duration::from_millis(500));
    assert!(child.try_wait().unwrap().is_none(), "two change one index at a time");
    drop(second);
    let rest: Vec<String> = said.collect();
    assert!(child.wait().unwrap().success(), "{rest:#?}");
    run(dir.path(), &["check", "--index", s(&index)]).exits(0).says("1 files, 0 of 0 findings serious");
    // Where nobody begins another one, that is told.
    let third = begun();
    let (mut child, said) = waiting();
    std::fs::remove_dir_all(&index).unwrap();
    drop(third);
    let rest: Vec<String> = said.collect();
    assert_eq!(child.wait().unwrap().code(), Some(3), "{rest:#?}");
    assert!(rest.iter().any(|line| line.contains("took it away again")), "{rest:#?}");
}

#[test]
fn pages_are_negotiated_and_files_go_out_by_range() {
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join("index");
    let w = wheel(&dir.path().join("w"), "de_mo", "1.0+local.1", "");
    run(dir.path(), &["add", "--index", s(&index), s(&w)]).exits(0);
    let server = Server::start(&index, &[]);
    let json = "Accept: application/vnd.pypi.simple.v1+json\r\n";
    let (status, head, body) = get(&server, "/simple/de-mo/", json);
    assert_eq!(status, 200, "{head}");
    assert!(
        head.contains("content-type: application/vnd.pypi.simple.v1+json") && head.contains("vary: accept"),
        "{head}"
    );
    let page: Value = serde_json::from_slice(&body).unwrap();
    let etag = head.lines().find_map(|l| l.strip_prefix("etag: ")).unwrap().to_owned();
    assert_eq!(get(&server, "/simple/de-mo/", &format!("{json}If-None-Match: {etag}\r\n")).0, 304);
    assert!(get(&server, "/simple/de-mo/", "").1.contains("text/html"));
    assert_eq!(get(&server, "/simple/de-mo/", "Accept: application/vnd.pypi.simple.v2+json\r\n").0, 406);
    let (status, head, _) = get(&server, "/simple/De.Mo/", "");
    assert!(status == 301 && head.contains("location: /simple/de-mo/"), "{head}");
    assert_eq!(get(&server, "/simple/none/", "").0, 404);
    let (_, head, body) = get(&server, "/simple/de-mo/", &format!("{json}Accept-Encoding: gzip\r\n"));
    assert!(head.contains("content-encoding: gzip"), "{head}");
    let mut plain = String::new();
    flate2::read::GzDecoder::new(&body[..]).read_to_string(&mut plain).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&plain).unwrap(), page);

    let bytes = std::fs::read(&w).unwrap();
    let url = page["files"][0]["url"].as_str().unwrap().trim_start_matches("../..").to_owned();
    assert!(url.contains("%2B"), "{url}");
    let (status, head, body) = get(&server, &url, "");
    assert_eq!((status, &body), (200, &bytes));
    assert!(head.contains(&format!("etag: \"{}\"", sha256(&bytes))) && head.contains("immutable"), "{head}");
    let (status, head, body) = get(&server, &url, "Range: bytes=10-19\r\n");
    assert_eq!((status, &body[..]), (206, &bytes[10..20]));
    assert!(head.contains(&format!("content-range: bytes 10-19/{}", bytes.len())), "{head}");
    // A range of another version of the file would be garbage.
    assert_eq!(get(&server, &url, "Range: bytes=10-19\r\nIf-Range: \"other\"\r\n").0, 200);
    assert_eq!(get(&server, &url, &format!("If-None-Match: \"{}\"\r\n", sha256(&bytes))).0, 304);
    assert_eq!(get(&server, &url, "Range: bytes=99999999-\r\n").0, 416);
    // More of the end than there is means all of it (RFC 9110, 14.1.2).
    let (status, _, body) = get(&server, &url, "Range: bytes=-99999999\r\n");
    assert_eq!((status, &body), (200, &bytes));
    assert_eq!(get(&server, &url, "Range: bytes=-7\r\n").2, bytes[bytes.len() - 7..]);
    assert_eq!(get(&server, &url, "Range: bytes=-0\r\n").0, 416);
    // One Host (RFC 9112, 3.2), which HTTP/1.0 does not know.
    let hosts = |version: &str, hosts: &str| {
        raw(server.address(), format!("GET / HTTP/{version}\r\nConnection: close\r\n{hosts}\r\n").as_bytes()).0
    };
    assert_eq!([hosts("1.1", ""), hosts("1.1", "Host: a\r\nHost: b\r\n"), hosts("1.0", "")], [400, 400, 200]);
    let (status, head, body) = ask(&server, "HEAD", &url, "");
    assert!(status == 200 && body.is_empty() && head.contains(&format!("content-length: {}", bytes.len())), "{head}");
    // HEAD knows no ranges (RFC 9110, 14.2), and 304 does not say that what it leaves out is empty (8.6).
    let (status, head, _) = ask(&server, "HEAD", &url, "Range: bytes=10-19\r\n");
    assert!(status == 200 && head.contains(&format!("content-length: {}", bytes.len())), "{head}");
    assert!(head.contains("accept-ranges: bytes") && !head.contains("content-range"), "{head}");
    for (method, path) in
        [("HEAD", "/simple/de-mo/"), ("GET", "/simple/de-mo/"), ("HEAD", url.as_str()), ("GET", url.as_str())]
    {
        let (status, head, _) = ask(&server, method, path, "If-None-Match: *\r\n");
        assert!(status == 304 && !head.contains("content-length"), "{method} {path}: {head}");
    }
    let metadata = get(&server, &format!("{url}.metadata"), "");
    assert!(metadata.0 == 200 && metadata.2.starts_with(b"Metadata-Version"));

    // What no page names is not served; nor is anything outside.
    std::fs::write(index.join("files/de-mo/stranger-1.0-py3-none-any.whl"), "x").unwrap();
    for path in [
        "/files/de-mo/stranger-1.0-py3-none-any.whl",
        "/files/de-mo/../../torchmill-index.json",
        "/files/de-mo/%2e%2e%2f%2e%2e%2ftorchmill-index.json",
        "/files/..%2f..%2f/x",
        "/simple/..%2f/",
        "/simple/%00/",
        "/.lock",
        "/torchmill-index.json",
    ] {
        let status = get(&server, path, "").0;
        assert!((400..500).contains(&status), "{path}: {status}");
    }
    for method in ["PUT", "DELETE", "PATCH"] {
        let (status, head, _) = ask(&server, method, "/simple/", "");
        assert!(status == 405 && head.contains("allow: get, head, post"), "{method}: {head}");
    }
    assert_eq!(ask(&server, "POST", "/", "Content-Length: 0\r\n").0, 403);
    let log = server.stop();
    assert!(log.contains("\"GET /simple/de-mo/ HTTP/1.1\" 200"), "{log}");
}

#[test]
fn clients_that_misbehave_do_not_stop_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join("index");
    run(dir.path(), &["add", "--index", s(&index), s(&wheel(&dir.path().join("w"), "demo", "1.0", ""))]).exits(0);
    let server = Server::start(&index, &["--quiet"]);
    let many: String = (0..1000).map(|i| format!("X-{i}: y\r\n")).collect();
    let status = get(&server, "/simple/", &many).0;
    assert!(status == 431 || status == 400 || status == 0, "{status}");
    let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(200_000));
    assert_ne!(raw(server.address(), long.as_bytes()).0, 200);
    assert_ne!(raw(server.address(), b"\x16\x03\x01\x02\x00\x01\x00").0, 200);
    // Slow ones hold a connection each, and are sent away in the end.
    let slow: Vec<TcpStream> = (0..200)
        .map(|_| {
            let mut stream = TcpStream::connect(server.address()).unwrap();
            stream.write_all(b"GET /simple/ HTTP/1.1\r\nHost: x\r\nX-Slow: ").unwrap();
            stream
        })
        .collect();
    let started = Instant::now();
    assert_eq!(get(&server, "/simple/demo/", "").0, 200);
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    let mut first = &slow[0];
    first.set_read_timeout(Some(Duration::from_secs(40))).unwrap();
    let mut rest = Vec::new();
    let _ = first.read_to_end(&mut rest);
    assert!(started.elapsed() < Duration::from_secs(35), "a slow client was kept for {:?}", started.elapsed());
    assert_eq!(get(&server, "/simple/demo/", "").0, 200);
}

/// A wheel with `size` bytes of noise in it.
fn noisy_wheel(dir: &Path, name: &str, version: &str, size: usize) -> PathBuf {
    let mut noise = fastrand::Rng::with_seed(7);
    let bytes: Vec<u8> = std::iter::repeat_with(|| noise.u8(..)).take(size).collect();
    large_wheel(dir, name, version, &bytes)
}

/// An index with `demo` 1.0, a small wheel, and `large` 1.0 with noise.
fn index_with_a_large_wheel(dir: &Path) -> PathBuf {
    let index = dir.join("index");
    let wheels = [wheel(&dir.join("w"), "demo", "1.0", ""), noisy_wheel(&dir.join("w"), "large", "1.0", 16 << 20)];
    run(dir, &["add", "--index", s(&index), s(&wheels[0]), s(&wheels[1])]).exits(0);
    index
}

/// Stopped while it reads a large wheel, and going on when the index is another one.
#[test]
#[cfg(target_os = "linux")]
fn what_comes_and_goes_while_wheels_are_checked_is_no_finding() {
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join("index");
    let w = dir.path().join("w");
    let wheels =
        [wheel(&w, "large", "0.5", ""), noisy_wheel(&w, "large", "1.0", 64 << 20), wheel(&w, "large", "2.0", "")];
    run(dir.path(), &["add", "--index", s(&index), s(&wheels[0]), s(&wheels[1])]).exits(0);
    let mut check = mirror(&["check", "--index", s(&index)])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .current_dir(dir.path())
        .spawn()
        .unwrap();
    let pid = check.id().to_string();
    let signal = |name: &str| assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    let is_reading = || {
        let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
        open.filter_map(|entry| std::fs::read_link(entry.path()).ok())
            .any(|path| path.ends_with("large-1.0-py3-none-any.whl"))
    };
    let begun = Instant::now();
    while !is_reading() {
        assert!(begun.elapsed() < Duration::from_secs(30) && check.try_wait().unwrap().is_none(), "it read nothing");
    }
    signal("-STOP");
    run(dir.path(), &["add", "--index", s(&index), s(&wheels[2])]).exits(0);
    run(dir.path(), &["remove", "--index", s(&index), "large-0.5-py3-none-any.whl", "--reason", "old"]).exits(0);
    signal("-CONT");
    let out = check.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && said.contains("2 files, 0 of 0 findings"), "{said}");
}

/// Resident memory of a process, MiB.
fn memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() / 1024
}

#[track_caller]
fn answers_within_a_second(server: &Server, attack: &str) {
    let asked = Instant::now();
    let status = get(server, "/simple/demo/", "").0;
    assert_eq!(status, 200, "{attack}");
    assert!(asked.elapsed() < Duration::from_secs(1), "{attack}: {:?}", asked.elapsed());
    assert!(memory(server.child.id()) < 200, "{attack}: {} MiB", memory(server.child.id()));
}

/// Every one of nine requests is answered within a second.
#[track_caller]
fn others_are_served(server: &Server, attack: &str) {
    let one = |_| {
        let asked = Instant::now();
        let status = get(server, "/simple/demo/", "").0;
        assert_eq!(status, 200, "{attack}");
        let took = asked.elapsed();
        std::thread::sleep(Duration::from_millis(100));
        took
    };
    let took: Vec<Duration> = (0..9).map(one).collect();
    assert!(took.iter().all(|t| *t < Duration::from_secs(1)), "{attack}: {took:?}");
    assert!(memory(server.child.id()) < 200, "{attack}: {} MiB", memory(server.child.id()));
}

const LARGE: &str = "/files/large/large-1.0-py3-none-any.whl";

#[test]
fn a_client_that_hangs_up_in_the_middle_of_an_answer_does_not_end_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start(&index_with_a_large_wheel(dir.path()), &["--quiet"]);
    for _ in 0..50 {
        let mut stream = TcpStream::connect(server.address()).unwrap();
        let _ = stream.write_all(&b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n".repeat(200));
    }
    for i in 0..50usize {
        let mut stream = TcpStream::connect(server.address()).unwrap();
        stream.write_all(format!("GET {LARGE} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
        // Something of it is read, more is on its way.
        let mut some = vec![0; 1 + (i * 7919) % 200_000];
        stream.read_exact(&mut some).unwrap();
    }
    answers_within_a_second(&server, "after a hundred clients that hung up");
    server.ends(0);
}

#[test]
fn a_log_that_nobody_reads_and_a_terminal_that_closes_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let index = index_with_a_large_wheel(dir.path());
    for closed in [false, true] {
        let mut child = mirror(&["serve", "--index", s(&index), "--port", "0"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
        // A pipe that is full after 64 KiB, or one without a reader.
        let stderr = child.stderr.take().filter(|_| !closed);
        let url = url.trim().trim_end_matches('/').to_owned();
        let mut server = Server { child, url, log: None };
        let line = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "long".repeat(100));
        for _ in 0..10 {
            let last = "GET /simple/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
            let text = format!("{}{last}", line.repeat(60));
            let (_, _, rest) = raw(server.address(), text.as_bytes());
            let answers = String::from_utf8_lossy(&rest).matches("HTTP/1.1").count();
            assert_eq!(answers, 60, "closed: {closed}");
        }
        succeeds(Command::new("kill").args(["-HUP", &server.child.id().to_string()]));
        std::thread::sleep(Duration::from_millis(300));
        answers_within_a_second(&server, "after SIGHUP");
        server.ends(0);
        drop(stderr);
    }
}

#[test]
fn a_server_whose_first_line_nobody_reads_serves_and_ends_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let index = index_with_a_large_wheel(dir.path());
    // A pipe that is full before it starts, as one that another server's log has filled.
    let (reader, writer) = std::io::pipe().unwrap();
    let mut before = writer.try_clone().unwrap();
    let filling = std::thread::spawn(move || before.write_all(&vec![b' '; 4 << 20]));
    std::thread::sleep(Duration::from_millis(500));
    let port = free_port();
    let child = mirror(&["serve", "--index", s(&index), "--port", &port.to_string()])
        .stdout(writer.try_clone().unwrap())
        .stderr(writer)
        .spawn()
        .unwrap();
    let mut server = Server { child, url: format!("http://127.0.0.1:{port}"), log: None };
    wait_for(port);
    answers_within_a_second(&server, "with a pipe that is full");
    let asked = Instant::now();
    server.ends(0);
    // In order, and not when its patience is over.
    assert!(asked.elapsed() < Duration::from_secs(7), "{:?}", asked.elapsed());
    drop(reader);
    assert!(filling.join().unwrap().is_err());
}

#[test]
fn a_line_of_the_log_is_short_whatever_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let index = index_with_a_large_wheel(dir.path());
    let server = Server::start(&index, &[]);
    let (method, path) = ("M".repeat(5000), "p".repeat(5000));
    let request = format!("{method} /{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert_eq!(raw(server.address(), request.as_bytes()).0, 405);
    let log = server.stop();
    let line = log.lines().find(|l| l.contains("MMM")).unwrap_or_else(|| panic!("{log}"));
    assert!(line.len() < 700 && line.contains(&format!("\"{} /ppp", "M".repeat(32))), "{line}");
}

#[test]
fn behind_a_proxy_the_start_page_names_the_address_that_it_was_told() {
    let dir = tempfile::tempdir().unwrap();
    let index = index_with_a_large_wheel(dir.path());
    std::fs::write(index.join("index.html"), "<p>at URL-OF-THIS-INDEX/simple/").unwrap();
    let server = Server::start(&index, &["--public-url", "https://wheels.example.com/team/"]);
    let asked_by = "X-Forwarded-Proto: http\r\nX-Forwarded-Host: evil.example\r\n";
    let (status, _, body) = get(&server, "/", asked_by);
    let told = "<p>at https://wheels.example.com/team/simple/";
    assert_eq!(status, 200);
    assert_eq!(String::from_utf8_lossy(&body), told);
    drop(server);
    // What whoever asks says of a proxy counts for nothing.
    let server = Server::start(&index, &[]);
    let (_, _, body) = get(&server, "/", "X-Forwarded-Proto: https\r\nForwarded: proto=https;host=evil.example\r\n");
    assert_eq!(String::from_utf8_lossy(&body), "<p>at http://localhost/simple/");
    for (bad, why) in [
        ("wheels.example.com", "is no address"),
        ("ftp://h/", "neither http nor https"),
        ("https://bob:S3CRET@h/", "holds a password"),
        ("https://h/?token=S3CRET", "is not just scheme, host, port and folders"),
        ("https://h/#x", "is not just"),
        ("https://h/a;b", "is not just"),
    ] {
        let ran = run(dir.path(), &["serve", "--index", s(&index), "--public-url", bad]).exits(2).says(why);
        assert!(!ran.stderr.contains("S3CRET"), "{}", ran.stderr);
    }
}

#[test]
fn whoever_says_nothing_or_does_not_read_keeps_nobody_out() {
    let dir = tempfile::tempdir().unwrap();
    let index = index_with_a_large_wheel(dir.path());
    // As ten thousand wheels make it.
    let start = format!("<!doctype html><p>URL-OF-THIS-INDEX{}", " wheel".repeat(1_400_000));
    std::fs::write(index.join("index.html"), &start).unwrap();
    let options = ["--quiet", "--max-connections", "80", "--head-timeout", "2", "--stall-timeout", "3"];
    let mut server = Server::start(&index, &options);
    let (status, head, body) = get(&server, "/", "");
    let whole = start.replacen("URL-OF-THIS-INDEX", "http://localhost", 1);
    assert!(status == 200 && head.contains(&format!("content-length: {}", whole.len())), "{head}");
    assert!(body == whole.as_bytes(), "the start page is another one");
    let download = format!("GET {LARGE} HTTP/1.1\r\nHost: x\r\n\r\n");
    let attacks: [(&str, Vec<u8>); 8] = [
        ("nothing is sent", Vec::new()),
        ("one byte is sent", b"G".to_vec()),
        ("half a head is sent", b"GET / HTTP/1.1\r\nHost: x\r\n".to_vec()),
        ("the beginning of HTTP/2's preface is sent", b"PRI * HT".to_vec()),
        ("HTTP/2 is spoken", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec()),
        ("a file is asked for and not read", download.into_bytes()),
        ("the start page is asked for and not read", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        ("the connection is kept alive and not used", b"GET /simple/ HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
    ];
    let begin = |bytes: &[u8], count: usize| -> Vec<TcpStream> {
        let one = |_| {
            let mut stream = TcpStream::connect(server.address()).unwrap();
            let _ = stream.write_all(bytes);
            stream
        };
        (0..count).map(one).collect()
    };
    // The same from other addresses, one for each attack.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let from_elsewhere = |last: u8, bytes: &[u8], count: usize| -> Vec<TcpStream> {
        let one = |_| {
            let connected = runtime.block_on(async {
                let socket = tokio::net::TcpSocket::new_v4().unwrap();
                socket.bind(([127, 0, 0, last], 0).into()).unwrap();
                socket.connect(server.address().parse().unwrap()).await.unwrap()
            });
            let mut stream = connected.into_std().unwrap();
            stream.set_nonblocking(false).unwrap();
            let _ = stream.write_all(bytes);
            stream
        };
        (0..count).map(one).collect()
    };
    for (attack, bytes) in &attacks {
        let held = begin(bytes, 100);
        others_are_served(&server, attack);
        // Each is sent away in the end, also where nobody else wants the place.
        drop(held);
        let mut few = begin(bytes, 3);
        std::thread::sleep(Duration::from_secs(6));
        for stream in &mut few {
            stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            // What was on its way may still come; then it is over.
            let over = std::io::copy(stream, &mut std::io::sink());
            let kept =
                over.is_err_and(|e| matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut));
            assert!(!kept, "{attack}: the connection is kept");
        }
    }
    // All at once, from other addresses, and from that of the others.
    let elsewhere: Vec<TcpStream> =
        (2..).zip(&attacks).flat_map(|(last, (_, bytes))| from_elsewhere(last, bytes, 60)).collect();
    others_are_served(&server, "all at once, from elsewhere");
    let held: Vec<TcpStream> = attacks.iter().flat_map(|(_, bytes)| begin(bytes, 60)).collect();
    others_are_served(&server, "all at once");
    // With all of them connected it ends when it is told to.
    server.ends(0);
    drop((held, elsewhere));
}

#[test]
fn an_answer_is_heard_also_by_a_client_that_is_still_sending() {
    let dir = tempfile::tempdir().unwrap();
    let index = index_with_a_large_wheel(dir.path());
    let token = dir.path().join("token");
    std::fs::write(&token, "a-token-for-uploads-0123").unwrap();
    let server = Server::start(&index, &["--upload-token", s(&token)]);
    // Without a word of asking first: all of a body that nobody wants.
    let head = "POST /legacy/ HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: 8000000\r\n\r\n";
    let (status, _, body) = raw(server.address(), &[head.as_bytes(), &vec![0; 8_000_000]].concat());
    assert_eq!((status, &body[..]), (401, &b"a token is needed\n"[..]));
    // Ours asks first: of a large wheel not a byte is sent, and it is not tried again.
    let large = dir.path().join("w/large-1.0-py3-none-any.whl");
    let mut push = mirror(&["push", "--to", &format!("{}/legacy/", server.url), s(&large)]);
    push.env("HOME", dir.path()).env("TORCHMILL_UPLOAD_PASSWORD", "not-the-token");
    let other = noisy_wheel(&dir.path().join("other"), "other", "1.0", 32 << 20);
    push.arg(s(&other));
    let asked = Instant::now();
    Ran::of(&mut push, dir.path()).exits(3).says("401").says("check user, password or token");
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    let log = server.stop();
    assert_eq!(log.matches("\"POST /legacy/").count(), 2, "{log}");
}

#[test]
fn secrets_leave_the_environment_and_memory_is_not_dumped() {
    let dir = tempfile::tempdir().unwrap();
    let index = index_with_a_large_wheel(dir.path());
    let mut command = mirror(&["serve", "--index", s(&index), "--port", "0", "--quiet"]);
    command.env("TORCHMILL_UPLOAD_TOKEN", "a-token-of-ours-73915").env("AWS_SECRET_ACCESS_KEY", "another-of-ours");
    command.env("PIP_INDEX_URL", "https://u:one-of-ours@h.example/").env("CARGO_REGISTRIES_X_TOKEN", "one-of-ours");
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut url = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
    let server = Server { child, url: url.trim().trim_end_matches('/').to_owned(), log: None };
    let about = |file: &str| std::fs::read(format!("/proc/{}/{file}", server.child.id()));
    // Of a process that is not dumped, /proc shows its environment to root alone.
    match about("environ") {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            assert!(text.contains("TORCHMILL_UPLOAD_TOKEN=") && !text.contains("of-ours"), "{text}");
        }
        Err(e) => assert_eq!(e.kind(), std::io::ErrorKind::PermissionDenied, "{e}"),
    }
    let limits = String::from_utf8(about("limits").unwrap()).unwrap();
    let core = limits.lines().find_map(|l| l.strip_prefix("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().take(2).collect::<Vec<_>>(), ["0", "0"], "{limits}");
}

#[test]
fn what_a_token_guards_is_kept_by_nobody_and_no_error_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join("index");
    run(dir.path(), &["add", "--index", s(&index), s(&wheel(&dir.path().join("w"), "demo", "1.0", ""))]).exits(0);
    let file = "/files/demo/demo-1.0-py3-none-any.whl";
    let token = dir.path().join("read");
    std::fs::write(&token, "a-token-for-readers-0123\n").unwrap();
    let auth = "Authorization: Bearer a-token-for-readers-0123\r\n";
    let (open, guarded) = (Server::start(&index, &[]), Server::start(&index, &["--read-token", s(&token)]));
    let control = |head: &str| head.lines().find_map(|l| l.strip_prefix("cache-control: ")).map(str::to_owned);
    for path in ["/", "/simple/", "/simple/demo/", "/simple/demo", "/nope"] {
        let head = get(&guarded, path, auth).1;
        assert!(control(&head).is_some_and(|c| c.contains("no-store")), "{path}: {head}");
    }
    assert_eq!(control(&get(&guarded, file, auth).1).unwrap(), "private, max-age=31536000, immutable");
    assert_eq!(control(&get(&open, file, "").1).unwrap(), "public, max-age=31536000, immutable");
    assert_eq!(control(&get(&open, "/simple/demo/", "").1).unwrap(), "no-cache");
    let errors = [
        (get(&guarded, "/simple/", ""), 401),
        (get(&open, "/files/demo/nope-1.0-py3-none-any.whl", ""), 404),
        (get(&open, file, "Range: bytes=99999999-\r\n"), 416),
        (get(&open, "/simple/demo/", "Accept: application/xml\r\n"), 406),
        (ask(&open, "PUT", "/", ""), 405),
        (ask(&open, "POST", "/", "Content-Length: 0\r\n"), 403),
    ];
    for ((status, head, _), wanted) in &errors {
        assert_eq!(status, wanted, "{head}");
        assert_eq!(control(head).as_deref(), Some("no-store"), "{head}");
        assert!(!head.contains("etag"), "{head}");
    }
    for path in ["/", "/simple/", "/simple/demo/", file] {
        let head = get(&open, path, "").1;
        for wanted in [
            "x-content-type-options: nosniff",
            "referrer-policy: no-referrer",
            "content-security-policy: default-src 'none'",
        ] {
            assert!(head.contains(wanted), "{path}: {wanted} is not in\n{head}");
        }
    }
    // Two encodings are two representations: each has an ETag of its own, and either is known again.
    let etag = |head: &str| head.lines().find_map(|l| l.strip_prefix("etag: ")).map(str::to_owned).unwrap();
    let (plain, gzip) = (get(&open, "/simple/demo/", "").1, get(&open, "/simple/demo/", "Accept-Encoding: gzip\r\n").1);
    assert_ne!(etag(&plain), etag(&gzip));
    for e in [etag(&plain), etag(&gzip)] {
        assert_eq!(get(&open, "/simple/demo/", &format!("If-None-Match: {e}\r\n")).0, 304);
    }
    // A file that is gone, or has another size than its page says, is an error that nobody keeps.
    let path = index.join(&file[1..]);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[1..]).unwrap();
    let (status, head, _) = get(&open, file, "");
    assert!(status == 500 && control(&head).as_deref() == Some("no-store"), "{head}");
    std::fs::remove_file(&path).unwrap();
    let (status, head, _) = get(&open, file, "");
    assert!(status == 404 && control(&head).as_deref() == Some("no-store"), "{head}");
}

#[test]
fn a_release_has_one_identity_however_it_is_spelled() {
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join("index");
    let add = |w: &Path| run(dir.path(), &["add", "--index", s(&index), s(w)]);
    let first = wheel(&dir.path().join("a"), "my_demo", "1.0", "");
    add(&first).exits(0).says("published");
    let spelled = |folder: &str, name: &str, of: &Path| {
        let path = dir.path().join(folder).join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::copy(of, &path).unwrap();
        path
    };
    let other = wheel(&dir.path().join("b"), "my_demo", "1.0", "Summary: other bytes\n");
    let spellings = ["My.Demo-1.0-py3-none-any.whl", "my_demo-1.0.0-py3-none-any.whl", "my_demo-v1-py3-none-any.whl"];
    for name in spellings {
        add(&spelled("b", name, &other)).exits(2).says("'my_demo-1.0-py3-none-any.whl' is published with the SHA-256");
        add(&spelled("a", name, &first)).exits(0).says("my_demo-1.0-py3-none-any.whl: already there, the same bytes");
    }
    // After it was removed as well; the same bytes may come back.
    run(dir.path(), &["remove", "--index", s(&index), "my_demo-1.0-py3-none-any.whl", "--reason", "a mistake"])
        .exits(0);
    for name in spellings {
        add(&spelled("b", name, &other)).exits(2).says("was removed at").says("a mistake");
    }
    add(&first).exits(0).says("published");
    run(dir.path(), &["check", "--index", s(&index)]).exits(0).says("1 files, 0 of 0");
    // What uv does not install is no spelling of it.
    add(&spelled("b", "my_demo-1.0-PY3-none-any.whl", &other)).exits(2).says("are not in small letters");
    // Nor what pip does not.
    add(&spelled("b", "my__demo-1.0-py3-none-any.whl", &other))
        .exits(2)
        .says("only some installers read two '_' in a row");
    // A build tag or another tag is another release.
    add(&spelled("b", "my_demo-1.0-2-py3-none-any.whl", &other)).exits(0).says("published");
    run(dir.path(), &["check", "--index", s(&index)]).exits(0).says("2 files, 0 of 0");
}

#[test]
fn what_is_published_is_a_regular_file_of_its_folder() {
    let dir = tempfile::tempdir().unwrap();
    let (index, w) = (dir.path().join("index"), dir.path().join("w"));
    let demo = wheel(&w, "demo", "1.0", "");
    let secret = dir.path().join("secret");
    std::fs::write(&secret, "PRIVATE KEY MATERIAL").unwrap();
    let report = w.join("demo-1.0-py3-none-any.validate.html");
    std::os::unix::fs::symlink(&secret, &report).unwrap();
    let add = |w: &Path| run(dir.path(), &["add", "--index", s(&index), s(w)]);
    add(&demo).exits(2).says("validate.html would be published with the wheel beside it, and is a symbolic link");
    std::fs::remove_file(&report).unwrap();
    let pipe = w.join("demo-1.0-py3-none-any.cdx.json");
    succeeds(Command::new("mkfifo").arg(&pipe));
    add(&demo).exits(2).says("is no regular file");
    std::fs::remove_file(&pipe).unwrap();
    // A pipe, a device and a folder by a wheel's name are refused at once, and none of it is read.
    let (pipe, device) = (w.join("p-1.0-py3-none-any.whl"), w.join("z-1.0-py3-none-any.whl"));
    succeeds(Command::new("mkfifo").arg(&pipe));
    std::os::unix::fs::symlink("/dev/zero", &device).unwrap();
    for path in [&pipe, &device] {
        add(path).exits(2).says("it is no regular file");
    }
    // Nor is one of them left out unseen where the folder is named.
    add(&w).exits(2).says("it is no regular file");
    std::fs::remove_file(&pipe).unwrap();
    std::fs::remove_file(&device).unwrap();
    let nowhere = w.join("n-1.0-py3-none-any.whl");
    std::os::unix::fs::symlink(dir.path().join("gone"), &nowhere).unwrap();
    add(&w).exits(2).says("n-1.0-py3-none-any.whl: there is no such file");
    assert!(!index.exists());
    add(&demo).exits(0).says("published");
}

#[test]
fn killed_adds_and_uploads_leave_all_or_nothing_and_what_they_leave_is_named_and_goes() {
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join("index");
    run(dir.path(), &["add", "--index", s(&index), s(&wheel(&dir.path().join("w"), "base", "1.0", ""))]).exits(0);
    let left = || {
        let is = |n: &str| n.starts_with(".incoming-") || n.starts_with(".upload-");
        let names = std::fs::read_dir(&index).unwrap().flatten().map(|e| e.file_name().into_string().unwrap());
        names.filter(|n| is(n)).collect::<Vec<_>>()
    };
    let checked = || -> Value {
        serde_json::from_str(&run(dir.path(), &["check", "--index", s(&index), "--json"]).stdout).unwrap()
    };
    // One that was killed before it had its lock.
    std::fs::create_dir(index.join(".incoming-empty")).unwrap();
    assert!(checked()["findings"][0]["path"].as_str().unwrap().contains(".incoming-empty"), "{}", checked());
    let mut killed = 0;
    for i in 0..12u64 {
        // Two projects in one set.
        let set: Vec<PathBuf> =
            ["a", "b"].map(|n| noisy_wheel(&dir.path().join("w"), &format!("{n}{i}"), "1.0", 1 << 20)).into();
        let mut child = mirror(&["add", "--quiet", "--index", s(&index), s(&set[0]), s(&set[1])]).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(10 + 12 * i));
        let _ = child.kill();
        killed += usize::from(child.wait().unwrap().code().is_none());
        let named: Vec<String> =
            checked()["findings"].as_array().unwrap().iter().map(|f| f["path"].to_string()).collect();
        for name in left() {
            let holds: Vec<_> =
                std::fs::read_dir(index.join(&name)).unwrap().flatten().map(|e| e.file_name()).collect();
            assert!(named.iter().any(|n| n.contains(&name)), "{name}, which holds {holds:?}, is not in {named:?}");
        }
        // The next change, of something else, finishes or undoes it: both projects, or none.
        let next = wheel(&dir.path().join("w"), "base", &format!("2.{i}"), "");
        run(dir.path(), &["add", "--index", s(&index), s(&next)]).exits(0);
        assert_eq!(left(), [""; 0]);
        let there = ["a", "b"].map(|n| index.join(format!("simple/{n}{i}/index.json")).exists());
        assert_eq!(there[0], there[1], "half a set is published");
        let json = checked();
        assert!(json["ok"] == true && json["findings"] == serde_json::json!([]), "{json}");
    }
    assert!(killed > 0, "nothing was killed in time");

    // An upload whose server is killed.
    let token = dir.path().join("token");
    std::fs::write(&token, "a-token-for-uploads-0123").unwrap();
    let server = Server::start(&index, &["--upload-token", s(&token)]);
    let mut stream = TcpStream::connect(server.address()).unwrap();
    let head = "POST /legacy/ HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer a-token-for-uploads-0123\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: 9000000\r\n\r\n--b\r\nContent-Disposition: form-data; name=\"content\"; filename=\"up-1.0-py3-none-any.whl\"\r\n\r\n";
    stream.write_all(&[head.as_bytes(), &vec![7; 2 << 20]].concat()).unwrap();
    let begun = Instant::now();
    while left().is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(20), "the upload does not arrive");
        std::thread::sleep(Duration::from_millis(20));
    }
    // While it is under way it is nobody's leftover, and a change leaves it alone.
    let next = wheel(&dir.path().join("w"), "base", "3.0", "");
    run(dir.path(), &["add", "--index", s(&index), s(&next)]).exits(0);
    assert_eq!((left().len(), checked()["findings"].clone()), (1, serde_json::json!([])));
    drop(server);
    assert!(checked()["findings"][0]["what"].as_str().unwrap().contains("interrupted"), "{}", checked());
    let server = Server::start(&index, &["--upload-token", s(&token)]);
    assert_eq!(left(), [""; 0]);
    // One whose client hangs up goes by itself.
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.write_all(&[head.as_bytes(), &vec![7; 2 << 20]].concat()).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    drop(stream);
    let begun = Instant::now();
    while !left().is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?} stays", left());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
#[ignore = "needs the right to mount a file system"]
fn a_full_disk_publishes_nothing_and_keeps_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk");
    let small = SmallDisk::mount(&disk, "6m");
    let index = disk.join("index");
    let good = wheel(&dir.path().join("w"), "demo", "1.0", "");
    run(dir.path(), &["add", "--index", s(&index), s(&good)]).exits(0);
    let page = std::fs::read(index.join("simple/demo/index.json")).unwrap();
    // Too large for the disk; what it is made of cannot be compressed.
    let mut noise = fastrand::Rng::with_seed(1);
    let bytes: Vec<u8> = std::iter::repeat_with(|| noise.u8(..)).take(8 << 20).collect();
    let large = large_wheel(&dir.path().join("w"), "demo", "2.0", &bytes);
    run(dir.path(), &["add", "--index", s(&index), s(&large)]).exits(3).says("No space left");
    assert_eq!(std::fs::read(index.join("simple/demo/index.json")).unwrap(), page);
    run(dir.path(), &["check", "--index", s(&index)]).exits(0).says("0 of 0 findings");
    // An upload meets the same disk: the server says so, publishes nothing, and stays up.
    let token = dir.path().join("token");
    std::fs::write(&token, "a-token-of-some-length").unwrap();
    let server = Server::start(&index, &["--upload-token", s(&token)]);
    let push = |wheel: &Path| {
        let mut command = mirror(&["push", "--to", &server.url, s(wheel)]);
        command.env("HOME", dir.path()).env("TORCHMILL_UPLOAD_USERNAME", "me");
        Ran::of(command.env("TORCHMILL_UPLOAD_PASSWORD", "a-token-of-some-length"), dir.path())
    };
    assert!(matches!(push(&large).code, Some(2 | 3)));
    assert_eq!(std::fs::read(index.join("simple/demo/index.json")).unwrap(), page);
    assert_eq!(get(&server, "/simple/demo/", "").0, 200);
    // With more space the same command goes through.
    small.grow("64m");
    push(&large).exits(0).says("uploaded");
    run(dir.path(), &["check", "--index", s(&index)]).exits(0).says("0 of 0 findings");
}

/// Uploads a wheel as twine does; the status.
fn upload(server: &Server, token: &str, w: &Path) -> u16 {
    let (name, bytes) = (w.file_name().unwrap().to_str().unwrap(), std::fs::read(w).unwrap());
    let begin = format!(
        "--b\r\nContent-Disposition: form-data; name=\":action\"\r\n\r\nfile_upload\r\n--b\r\nContent-Disposition: form-data; name=\"content\"; filename=\"{name}\"\r\n\r\n"
    );
    let body = [begin.as_bytes(), &bytes, b"\r\n--b--\r\n"].concat();
    let head = format!(
        "POST /legacy/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    raw(server.address(), &[head.as_bytes(), &body].concat()).0
}

#[test]
fn a_form_in_which_no_field_begins_is_ended_and_one_about_another_wheel_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (index, token) = (dir.path().join("index"), "a-token-of-the-test-alone");
    let file = dir.path().join("token");
    std::fs::write(&file, token).unwrap();
    #[cfg(unix)]
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    run(dir.path(), &["add", "--index", s(&index), s(&wheel(&dir.path().join("w"), "demo", "1.0", ""))]).exits(0);
    let server = Server::start(&index, &["--quiet", "--upload-token", s(&file)]);
    let head = format!(
        "POST /legacy/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    );
    let before = memory(server.child.id());
    for begins in ["--b\r\nContent-Disposition: form-data; name=\"", "no boundary: "] {
        let many: Vec<_> = (0..60)
            .map(|_| {
                let body = format!("{begins}{}", "a".repeat(8 << 20));
                let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
                let address = server.address().to_owned();
                std::thread::spawn(move || raw(&address, request.as_bytes()).0)
            })
            .collect();
        while many.iter().any(|one| !one.is_finished()) {
            let grown = memory(server.child.id()).saturating_sub(before);
            assert!(grown < 50, "{begins}: {grown} MiB more");
            std::thread::sleep(Duration::from_millis(20));
        }
        let told: Vec<u16> = many.into_iter().map(|one| one.join().unwrap()).collect();
        // Some are still sending when they are told.
        assert!(told.iter().all(|status| [431, 0].contains(status)) && told.contains(&431), "{begins}: {told:?}");
    }
    let w = wheel(&dir.path().join("w"), "other", "2.0", "");
    let bytes = std::fs::read(&w).unwrap();
    let send = |fields: &[(&str, &str)]| {
        let field = |(name, value): &(&str, &str)| {
            format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
        };
        let fields: String = [(":action", "file_upload")].iter().chain(fields).map(field).collect();
        let begin = format!(
            "{fields}--b\r\nContent-Disposition: form-data; name=\"content\"; filename=\"other-2.0-py3-none-any.whl\"\r\n\r\n"
        );
        let body = [begin.as_bytes(), &bytes, b"\r\n--b--\r\n"].concat();
        let request = [format!("{head}Content-Length: {}\r\n\r\n", body.len()).as_bytes(), &body].concat();
        let (status, _, said) = raw(server.address(), &request);
        (status, String::from_utf8_lossy(&said).into_owned())
    };
    let (status, said) = send(&[("name", "demo")]);
    assert!(status == 400 && said.contains("the form says name 'demo'; the wheel is of other"), "{status} {said}");
    let (status, said) = send(&[("name", "other"), ("version", "2.1")]);
    assert!(status == 400 && said.contains("the form says version '2.1'"), "{status} {said}");
    // What is kept in memory of many forms is short; a description is not kept.
    let long = "1".repeat(100_000);
    let (status, said) = send(&[("version", long.as_str())]);
    assert!(status == 413 && said.contains("the field 'version' has more than 4096 bytes"), "{status} {said}");
    let digest = |program: &[&str]| {
        let out = Command::new(program[0]).args(&program[1..]).arg(&w).output().unwrap();
        String::from_utf8(out.stdout).unwrap().split(' ').next().unwrap().to_owned()
    };
    let digests = [
        ("sha256_digest", "SHA-256", digest(&["sha256sum"])),
        ("blake2_256_digest", "BLAKE2b-256", digest(&["b2sum", "--length=256"])),
        ("md5_digest", "MD5", digest(&["md5sum"])),
    ];
    for (field, name, own) in &digests {
        let (status, said) = send(&[(field, &own.replace(['0', '7'], "1"))]);
        assert!(status == 400 && said.contains(&format!("the file has the {name} {own}; the form says")), "{said}");
    }
    let mut fields: Vec<(&str, &str)> = digests.iter().map(|(field, _, own)| (*field, own.as_str())).collect();
    fields.extend([("name", "Other"), ("version", "2.0.0"), ("description", long.as_str())]);
    let (status, said) = send(&fields);
    assert_eq!(status, 200, "{said}");
}

#[test]
fn uploads_that_wait_for_another_change_keep_nobody_out() {
    let dir = tempfile::tempdir().unwrap();
    let (index, token) = (dir.path().join("index"), "a-token-of-the-test-alone");
    let file = dir.path().join("token");
    std::fs::write(&file, token).unwrap();
    run(dir.path(), &["add", "--index", s(&index), s(&wheel(&dir.path().join("w"), "demo", "1.0", ""))]).exits(0);
    let server = Server::start(&index, &["--quiet", "--upload-token", s(&file)]);
    // More of them than the server may have threads that wait.
    let held = locked(&index.join(".lock"));
    let head = format!(
        "POST /legacy/ HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: 9000\r\n\r\n--b\r\n"
    );
    let begin = |_| {
        let mut stream = TcpStream::connect(server.address()).unwrap();
        let _ = stream.write_all(head.as_bytes());
        stream
    };
    let waiting: Vec<TcpStream> = (0..600).map(begin).collect();
    std::thread::sleep(Duration::from_millis(500));
    others_are_served(&server, "600 uploads wait");
    drop(waiting);
    drop(held);
    assert_eq!(upload(&server, token, &wheel(&dir.path().join("w"), "demo", "1.1", "")), 200);
}

#[test]
fn a_lock_and_a_promotion_hold_all_of_a_set_or_nothing_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let (index, to, out) = (dir.path().join("index"), dir.path().join("to"), dir.path().join("wheels.lock"));
    let set = ["a", "b"].map(|name| wheel(&dir.path().join("w"), name, "1.0", ""));
    run(dir.path(), &["add", "--index", s(&index), s(&set[0]), s(&set[1])]).exits(0);
    let names = ["a-1.0-py3-none-any.whl", "b-1.0-py3-none-any.whl"];
    // As who is killed leaves it between the two pages of a set that is decided.
    let killed = || {
        let left = index.join(".incoming-killed");
        std::fs::create_dir(&left).unwrap();
        std::fs::rename(index.join("simple/b/index.json"), left.join("page-0")).unwrap();
        std::fs::write(left.join("lock"), "").unwrap();
        let commit = r#"{"moves":[["page-0","simple/b/index.json"]],"gone":[]}"#;
        std::fs::write(left.join("commit.json"), commit).unwrap();
    };
    killed();
    run(dir.path(), &["lock", "--index", s(&index), "--out", s(&out)]).exits(0);
    let lock = std::fs::read_to_string(&out).unwrap();
    assert!(names.iter().all(|name| lock.contains(name)), "{lock}");
    killed();
    let copied = run(dir.path(), &["copy", "--from", s(&index), "--to", s(&to)]).exits(0);
    assert!(names.iter().all(|name| copied.stdout.contains(name)), "{}", copied.stdout);
    // Nor is it read while somebody changes it.
    let held = locked(&index.join(".lock"));
    let mut lock = mirror(&["lock", "--index", s(&index), "--out", s(&out)]).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(500));
    assert!(lock.try_wait().unwrap().is_none(), "it does not wait");
    drop(held);
    assert!(lock.wait().unwrap().success());
}

#[test]
fn what_comes_to_nothing_leaves_no_index() {
    let dir = tempfile::tempdir().unwrap();
    let (index, lock) = (dir.path().join("index"), dir.path().join("lock"));
    run(dir.path(), &["add", "--index", s(&index), "pypi:"]).exits(2);
    let file = |time: &str| {
        format!(
            "version = 1\n[[file]]\nname = \"x-1-py3-none-any.whl\"\nsha256 = \"{}\"\nsize = 1\nupload_time = \"{time}\"\n",
            "0".repeat(64)
        )
    };
    let none = dir.path().join("none.txt");
    std::fs::write(&none, "# nothing\n").unwrap();
    run(dir.path(), &["add", "--index", s(&index), s(&none)]).exits(2).says("asks for anything on this machine");
    std::fs::write(&lock, file("2026-01-01T00:00:00.000000Z")).unwrap();
    let make = ["make", "--index", s(&index), "--offline", "--lock", s(&lock)];
    run(dir.path(), &make).exits(2).says("1 of 1 files are found nowhere");
    std::fs::write(&lock, file("\\u001b[31mnow")).unwrap();
    run(dir.path(), &make).exits(2).says("'\\u{1b}[31mnow' of x-1-py3-none-any.whl is no time");
    // Of another form they would not sort as text, by which `prune` goes.
    let others = ["", "9", "2026-01-01T00:00:00Z", "+2026-01-01T00:00:00.00000Z", "2026-01-01T00:00:00.000000+00:00"];
    // Nor is everything of this form a time: uv reads nothing of a page with another one.
    let days = ["2026-13-01", "2026-00-01", "2026-04-31", "2026-02-29", "2100-02-29", "2026-01-00"];
    let days = days.map(|day| format!("{day}T00:00:00.000000Z"));
    let hours = ["24:00:00", "23:60:00", "23:59:60"].map(|hour| format!("2026-01-01T{hour}.000000Z"));
    for time in others.into_iter().chain(days.iter().chain(&hours).map(String::as_str)) {
        std::fs::write(&lock, file(time)).unwrap();
        run(dir.path(), &make).exits(2).says(&format!("'{time}' of x-1-py3-none-any.whl is no time"));
    }
    for time in ["2028-02-29T23:59:59.999999Z", "2000-02-29T00:00:00.000000Z"] {
        std::fs::write(&lock, file(time)).unwrap();
        run(dir.path(), &make).exits(2).says("1 of 1 files are found nowhere");
    }
    assert!(!index.exists());
    let w = wheel(&dir.path().join("w"), "demo", "1.0", "");
    run(dir.path(), &["add", "--index", s(&w), s(&w)]).exits(2).says("is no folder");
}

#[test]
fn a_page_that_says_of_a_wheel_what_the_wheel_does_not_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join("index");
    let w = wheel(&dir.path().join("w"), "demo", "1.0", "");
    run(dir.path(), &["add", "--index", s(&index), s(&w)]).exits(0);
    let page = index.join("simple/demo/index.json");
    let right = std::fs::read_to_string(&page).unwrap();
    for (from, to, field) in [
        (">=3.8", ">=3.1", "requires-python"),
        ("../../files/demo/", "https://elsewhere.invalid/", "url"),
        ("\"_version\":\"1.0\"", "\"_version\":\"1.1\"", "version"),
    ] {
        let wrong = right.replacen(from, to, 1);
        assert_ne!(wrong, right, "{field}");
        std::fs::write(&page, wrong).unwrap();
        let ran = run(dir.path(), &["check", "--index", s(&index)]).exits(1);
        let said = format!("its {field} is not what the page says");
        assert!(ran.stdout.contains(&said) || ran.stderr.contains(&said), "{}{}", ran.stdout, ran.stderr);
    }
    std::fs::write(&page, right).unwrap();
    run(dir.path(), &["check", "--index", s(&index)]).exits(0);
}

#[test]
fn what_no_project_stands_behind_is_named_and_not_served() {
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join("index");
    run(dir.path(), &["add", "--index", s(&index), s(&wheel(&dir.path().join("w"), "demo", "1.0", ""))]).exits(0);
    let server = Server::start(&index, &["--quiet"]);
    let json = "Accept: application/vnd.pypi.simple.v1+json\r\n";
    let found = || -> Vec<(String, bool)> {
        let ran = run(dir.path(), &["check", "--index", s(&index), "--json"]);
        let checked: Value = serde_json::from_str(&ran.stdout).unwrap();
        let findings = checked["findings"].as_array().unwrap();
        let found: Vec<_> = findings
            .iter()
            .map(|f| (f["path"].as_str().unwrap().to_owned(), f["serious"].as_bool().unwrap()))
            .collect();
        assert_eq!(ran.code, Some(i32::from(found.iter().any(|(_, serious)| *serious))), "{checked}");
        found
    };
    assert!(found().is_empty());
    // Pages that say something else than the projects.
    for page in ["simple/index.json", "simple/index.html", "simple/demo/index.html", "index.html"] {
        let right = std::fs::read(index.join(page)).unwrap();
        std::fs::write(index.join(page), "{\"meta\":{\"api-version\":\"1.1\"},\"projects\":[]}").unwrap();
        assert_eq!(found(), [(page.to_owned(), true)]);
        std::fs::remove_file(index.join(page)).unwrap();
        assert_eq!(found(), [(page.to_owned(), true)]);
        std::fs::write(index.join(page), right).unwrap();
    }
    // A project's JSON that says more than its files.
    let page = index.join("simple/demo/index.json");
    let right = std::fs::read_to_string(&page).unwrap();
    let file = "files/demo/demo-1.0-py3-none-any.whl";
    for (from, to, path) in [
        ("{\"meta\"", "{\"alternate-locations\":[\"https://x.invalid/\"],\"meta\"", "simple/demo/index.json"),
        ("\"versions\":[\"1.0\"]", "\"versions\":[\"1.0\",\"9\"]", "simple/demo/index.json"),
        ("\"api-version\":\"1.1\"", "\"api-version\":\"9.0\"", "simple/demo/index.json"),
        ("\"filename\"", "\"gpg-sig\":true,\"filename\"", "simple/demo/index.json"),
        ("\"hashes\":{", "\"hashes\":{\"md5\":\"0\",", file),
    ] {
        let wrong = right.replacen(from, to, 1);
        assert_ne!(wrong, right, "{from}");
        std::fs::write(&page, wrong).unwrap();
        assert_eq!(found(), [(path.to_owned(), true)], "{to}");
    }
    std::fs::write(&page, &right).unwrap();
    // Folders without a project; empty ones are left by adds that were interrupted.
    for (folder, file) in
        [("simple/evil", "index.html"), ("files/orphan", "x.whl"), ("simple/empty", ""), ("files/empty", "")]
    {
        std::fs::create_dir(index.join(folder)).unwrap();
        if !file.is_empty() {
            std::fs::write(index.join(folder).join(file), "<script>evil</script>").unwrap();
        }
    }
    std::fs::write(index.join("simple/demo/more.html"), "more").unwrap();
    let named = [("simple/demo/more.html", false), ("simple/evil", true), ("files/orphan", false)];
    assert_eq!(found(), named.map(|(path, serious)| (path.to_owned(), serious)));
    for headers in ["", json] {
        assert_eq!(get(&server, "/simple/evil/", headers).0, 404);
        assert_eq!(get(&server, "/simple/demo/", headers).0, 200);
    }
    for folder in ["simple/evil", "files/orphan", "simple/empty", "files/empty"] {
        std::fs::remove_dir_all(index.join(folder)).unwrap();
    }
    std::fs::remove_file(index.join("simple/demo/more.html")).unwrap();
    assert!(found().is_empty());
    // A folder that is a link, and one whose JSON went away.
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(index.join("simple/demo"), index.join("simple/linked")).unwrap();
        for headers in ["", json] {
            assert_eq!(get(&server, "/simple/linked/", headers).0, 404);
        }
        run(dir.path(), &["check", "--index", s(&index)]).exits(2).says("is damaged");
        std::fs::remove_file(index.join("simple/linked")).unwrap();
        // A link that takes the place of a folder whose pages are in memory.
        for (folder, path) in
            [("simple/demo", "/simple/demo/"), ("files/demo", "/files/demo/demo-1.0-py3-none-any.whl")]
        {
            let (ours, theirs) = (index.join(folder), dir.path().join("theirs"));
            for headers in ["", json] {
                assert_eq!(get(&server, path, headers).0, 200, "{path}");
            }
            std::fs::create_dir(&theirs).unwrap();
            for entry in std::fs::read_dir(&ours).unwrap() {
                let entry = entry.unwrap();
                std::fs::copy(entry.path(), theirs.join(entry.file_name())).unwrap();
            }
            std::fs::rename(&ours, dir.path().join("kept")).unwrap();
            std::os::unix::fs::symlink(&theirs, &ours).unwrap();
            for headers in ["", json] {
                assert_eq!(get(&server, path, headers).0, 404, "{path}");
            }
            std::fs::remove_file(&ours).unwrap();
            std::fs::rename(dir.path().join("kept"), &ours).unwrap();
            std::fs::remove_dir_all(&theirs).unwrap();
        }
    }
    std::fs::remove_file(&page).unwrap();
    assert_eq!(get(&server, "/simple/demo/", "").0, 404);
    std::fs::write(&page, right).unwrap();
    assert_eq!(get(&server, "/simple/demo/", "").0, 200);
    assert!(found().is_empty());
}

#[test]
fn a_disk_that_runs_full_at_any_step_publishes_nothing_that_was_refused() {
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk");
    let _small = SmallDisk::mount(&disk, "4m");
    let index = disk.join("index");
    run(dir.path(), &["add", "--index", s(&index), s(&wheel(&dir.path().join("w"), "demo", "1.0", ""))]).exits(0);
    let token = dir.path().join("token");
    std::fs::write(&token, "a-token-for-uploads-0123").unwrap();
    let server = Server::start(&index, &["--upload-token", s(&token)]);
    let fill = || {
        let mut file = std::fs::OpenOptions::new().append(true).create(true).open(disk.join("fill")).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
    };
    let mut seen = [0, 0];
    for pages in 1..=22 {
        fill();
        let file = std::fs::OpenOptions::new().write(true).open(disk.join("fill")).unwrap();
        let size = file.metadata().unwrap().len();
        file.set_len(size.saturating_sub(4096 * pages)).unwrap();
        let name = format!("edge{pages}");
        let status = upload(&server, "a-token-for-uploads-0123", &wheel(&dir.path().join("w"), &name, "1.0", ""));
        let there = get(&server, &format!("/simple/{name}/"), "").0;
        match status {
            200 => assert_eq!(there, 200, "{pages} pages"),
            507 => assert_eq!(there, 404, "{pages} pages"),
            other => panic!("{other} with {pages} pages"),
        }
        seen[usize::from(status == 200)] += 1;
        run(dir.path(), &["check", "--index", s(&index)]).exits(0).says("0 of 0 findings");
    }
    assert!(seen[0] > 0 && seen[1] > 0, "{seen:?}: the disk was never full, or always");
}

/// A wheel with a module that holds `bytes`, and a true RECORD.
fn large_wheel(dir: &Path, name: &str, version: &str, bytes: &[u8]) -> PathBuf {
    build_wheel(dir, name, version, "", |files| {
        let record = format!("{name}-{version}.dist-info/RECORD");
        let digest = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(Sha256::digest(bytes));
        files.insert(format!("{name}/noise.bin"), bytes.to_vec());
        let line = format!("{name}/noise.bin,sha256={digest},{}\n", bytes.len());
        files.get_mut(&record).unwrap().splice(0..0, line.into_bytes());
    })
}

#[test]
#[ignore = "needs Chromium"]
fn the_start_page_is_for_people() {
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join("index");
    let w = dir.path().join("w");
    let demo = wheel(&w, "demo", "2.6.0+cpu.libuv", "Summary: <b>a</b> demonstration\n");
    for (ending, text) in
        [("validate.html", "<!doctype html><title>Validation</title><p>held"), ("manifest.json", "{}")]
    {
        std::fs::write(w.join(format!("demo-2.6.0+cpu.libuv-py3-none-any.{ending}")), text).unwrap();
    }
    run(dir.path(), &["add", "--index", s(&index), s(&demo)]).exits(0);
    let names: Vec<PathBuf> =
        (1..40).map(|i| wheel(&w, "a_project_with_a_rather_long_name", &format!("1.{i}"), "")).collect();
    run(dir.path(), &[&["add", "--index", s(&index)][..], &names.iter().map(|p| s(p)).collect::<Vec<_>>()].concat())
        .exits(0);
    let server = Server::start(&index, &[]);
    let dom = browser::dump_dom(&format!("{}/", server.url), "1200,900", false);
    for text in ["demo-2.6.0+cpu.libuv-py3-none-any.whl", &sha256(&std::fs::read(&demo).unwrap()), "validation report"]
    {
        assert!(dom.contains(text), "{text} is not in\n{dom}");
    }
    assert!(!dom.contains("<b>a</b>"));
    // Every link of the page leads somewhere, the report to a page that may load nothing.
    let links: Vec<&str> =
        dom.split("<a ").skip(1).filter_map(|l| l.split("href=\"").nth(1)?.split('"').next()).collect();
    assert!(links.len() > 40, "{links:?}");
    for link in &links {
        let (status, head, _) = get(&server, &format!("/{link}"), "");
        assert_eq!(status, 200, "{link}");
        if link.ends_with(".validate.html") {
            assert!(head.contains("text/html") && head.contains("default-src 'none'"), "{head}");
        }
    }
    assert!(links.iter().any(|l| l.ends_with("demo-2.6.0%2Bcpu.libuv-py3-none-any.validate.html")), "{links:?}");
    // As a phone shows it, and in the dark: from a copy with a script that the page itself does not have.
    let (_, head, body) = get(&server, "/", "");
    let html = String::from_utf8(body).unwrap();
    // The one script is the page's own, and no other would run.
    let [_, script] = html.split("<script>").collect::<Vec<_>>()[..] else { panic!("{html}") };
    assert!(!html.contains("<script "), "{html}");
    let digest = Sha256::digest(script.split("</script>").next().unwrap());
    let allowed = format!("'sha256-{}'", base64::engine::general_purpose::STANDARD.encode(digest)).to_lowercase();
    assert!(head.contains(&format!("script-src {allowed};")), "{allowed} is not in\n{head}");
    // It gives the page its address, a search and buttons that copy.
    assert!(dom.contains(&format!("class=\"here\">{}", server.url)) || !html.contains("class=\"here\""), "{dom}");
    assert!(dom.contains("<button") && !dom.contains("<button hidden"), "{dom}");
    let copy = dir.path().join("probe.html");
    std::fs::write(&copy, html.replace("</body>", &format!("{}</body>", browser::PROBE))).unwrap();
    let phone = browser::answer(&browser::dump_dom(&browser::file(&copy), "500,900", false));
    assert_eq!(phone["overflow"], false, "{phone}");
    assert_eq!(phone["wide"], serde_json::json!([]), "{phone}");
    let dark = browser::answer(&browser::dump_dom(&browser::file(&copy), "1200,900", true));
    assert_ne!(phone["ground"], dark["ground"], "{phone} {dark}");
}

#[test]
#[ignore = "needs nginx"]
fn nginx_serves_the_folder_as_the_docs_configure_it() {
    let dir = tempfile::tempdir().unwrap();
    let env = clients();
    let index = dir.path().join("index");
    let demo = wheel(&dir.path().join("w"), "demo", "2.6.0+cpu.libuv", "");
    run(dir.path(), &["add", "--index", s(&index), s(&demo)]).exits(0);
    let docs = std::fs::read_to_string(root().join("docs/mirror.md")).unwrap();
    let block = docs.split("```nginx\n").nth(1).unwrap().split("```").next().unwrap();
    let port = free_port();
    let block =
        block.replace("/srv/wheels", s(&index)).replacen("server {", &format!("server {{ listen 127.0.0.1:{port};"), 1);
    let here = s(dir.path());
    // As root it would give up its rights, and then cannot read a private folder.
    let id = Command::new("id").arg("-u").output().unwrap().stdout;
    let user = if id.trim_ascii() == b"0" { "user root;" } else { "" };
    let config = format!(
        "daemon off; pid {here}/pid; error_log {here}/error.log; {user}\nevents {{}}\nhttp {{ access_log off; client_body_temp_path {here}/a; proxy_temp_path {here}/b; fastcgi_temp_path {here}/c; uwsgi_temp_path {here}/d; scgi_temp_path {here}/e;\n{block}}}\n"
    );
    let path = dir.path().join("nginx.conf");
    std::fs::write(&path, config).unwrap();
    struct Nginx(Child);
    impl Drop for Nginx {
        fn drop(&mut self) {
            let _ = Command::new("kill").arg(self.0.id().to_string()).status();
            let _ = self.0.wait();
        }
    }
    let _nginx = Nginx(Command::new("nginx").arg("-c").arg(&path).arg("-p").arg(dir.path()).spawn().unwrap());
    wait_for(port);
    let address = format!("127.0.0.1:{port}");
    let ask = |path: &str, accept: &str| {
        raw(
            &address,
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAccept: {accept}\r\n\r\n")
                .as_bytes(),
        )
    };
    let (status, head, body) = ask("/simple/demo/", "application/vnd.pypi.simple.v1+json, text/html;q=0.1");
    assert_eq!(status, 200, "{head}");
    assert!(head.contains("content-type: application/vnd.pypi.simple.v1+json"), "{head}");
    assert!(serde_json::from_slice::<Value>(&body).is_ok());
    assert!(ask("/simple/demo/", "text/html").1.contains("content-type: text/html"));
    assert!(matches!(ask("/.lock", "*/*").0, 403 | 404));
    let target = dir.path().join("target");
    let simple = format!("http://{address}/simple/");
    succeeds(client(&env, "python", dir.path()).args([
        "-m",
        "pip",
        "install",
        "--no-cache-dir",
        "--index-url",
        &simple,
        "--target",
        s(&target),
        "demo==2.6.0+cpu.libuv",
    ]));
    assert!(target.join("demo/__init__.py").is_file());
}

#[test]
fn real_clients_install_from_it() {
    let dir = tempfile::tempdir().unwrap();
    let env = clients();
    let index = dir.path().join("index");
    let w = |name: &str, version: &str, more: &str| wheel(&dir.path().join("w"), name, version, more);
    let wheels = [
        w("demo", "2.6.0+cpu.libuv", "Requires-Dist: dep>=1\n"),
        w("demo", "2.5.0", ""),
        w("dep", "1.0", ""),
        w("dep", "1.1", ""),
        w("dep", "1.2", ""),
    ];
    let paths: Vec<&str> = wheels.iter().map(|p| s(p)).collect();
    run(dir.path(), &[&["add", "--index", s(&index)][..], &paths[..]].concat()).exits(0);
    run(dir.path(), &["yank", "--index", s(&index), "dep-1.1-py3-none-any.whl", "--reason", "broken"]).exits(0);
    run(dir.path(), &["yank", "--index", s(&index), "dep-1.2-py3-none-any.whl"]).exits(0);
    let server = Server::start(&index, &[]);
    let simple = format!("{}/simple/", server.url);
    let target = |name: &str| dir.path().join(name);

    // pip, with hashes.
    let digest = |p: &Path| sha256(&std::fs::read(p).unwrap());
    let requirements = dir.path().join("requirements.txt");
    let lines = format!(
        "demo==2.6.0+cpu.libuv --hash=sha256:{}\ndep==1.0 --hash=sha256:{}\n",
        digest(&wheels[0]),
        digest(&wheels[2])
    );
    std::fs::write(&requirements, lines).unwrap();
    let pip = |args: &[&str]| {
        let mut command = client(&env, "python", dir.path());
        command.args(["-m", "pip"]).args(args).args(["--index-url", &simple]);
        command
    };
    let out = target("pip");
    succeeds(
        pip(&["install", "--no-cache-dir", "--require-hashes", "-r", s(&requirements), "--target", s(&out)])
            .arg("--quiet"),
    );
    assert!(out.join("demo/__init__.py").is_file() && out.join("dep/__init__.py").is_file());
    // The yanked ones are left out, with a reason and without.
    let said =
        succeeds(&mut pip(&["install", "--no-cache-dir", "demo==2.6.0+cpu.libuv", "--dry-run", "--ignore-installed"]));
    assert!(said.contains("dep-1.0") && !said.contains("dep-1.1") && !said.contains("dep-1.2"), "{said}");
    // Resolving reads METADATA beside the wheels, and no wheel.
    let log = server.stop();
    assert!(
        log.contains("demo-2.6.0+cpu.libuv-py3-none-any.whl.metadata")
            || log.contains("libuv-py3-none-any.whl.metadata"),
        "{log}"
    );
    let server = Server::start(&index, &[]);
    let simple = format!("{}/simple/", server.url);
    let pip = |args: &[&str]| {
        let mut command = client(&env, "python", dir.path());
        command.args(["-m", "pip"]).args(args).args(["--index-url", &simple]);
        command
    };
    succeeds(&mut pip(&["install", "--no-cache-dir", "demo", "--dry-run", "--ignore-installed", "--quiet"]));
    let out = target("download");
    succeeds(&mut pip(&["download", "--no-cache-dir", "demo==2.5.0", "--dest", s(&out), "--quiet"]));
    assert_eq!(digest(&out.join("demo-2.5.0-py3-none-any.whl")), digest(&wheels[1]));
    let said = succeeds(&mut pip(&["index", "versions", "demo"]));
    assert!(said.contains("2.6.0+cpu.libuv") && said.contains("2.5.0"), "{said}");

    // uv.
    let out = target("uv");
    let mut uv = client(&env, "uv", dir.path());
    uv.args([
        "pip",
        "install",
        "--no-cache",
        "--index-url",
        &simple,
        "--target",
        s(&out),
        "--require-hashes",
        "-r",
        s(&requirements),
    ]);
    succeeds(&mut uv);
    assert!(out.join("demo/__init__.py").is_file());

    // Poetry: a lock with hashes.
    let project = dir.path().join("project");
    std::fs::create_dir(&project).unwrap();
    let text = format!(
        "[project]\nname = \"consumer\"\nversion = \"0\"\nrequires-python = \">=3.9\"\ndependencies = [\"demo==2.6.0+cpu.libuv\"]\n[tool.poetry]\npackage-mode = false\n[[tool.poetry.source]]\nname = \"team\"\nurl = \"{simple}\"\npriority = \"primary\"\n"
    );
    std::fs::write(project.join("pyproject.toml"), text).unwrap();
    succeeds(client(&env, "poetry", dir.path()).current_dir(&project).args(["lock", "--no-interaction"]));
    let lock = std::fs::read_to_string(project.join("poetry.lock")).unwrap();
    assert!(lock.contains(&digest(&wheels[0])) && lock.contains(&digest(&wheels[2])), "{lock}");
    let log = server.stop();
    assert!(!log.contains(" 500 "), "{log}");
}

#[test]
fn a_token_guards_reading_and_uploading() {
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join("index");
    run(dir.path(), &["add", "--index", s(&index), s(&wheel(&dir.path().join("w"), "demo", "1.0", ""))]).exits(0);
    let (read, upload) = (dir.path().join("read"), dir.path().join("upload"));
    std::fs::write(&read, "a-token-for-readers-0123\n").unwrap();
    std::fs::write(&upload, "a-token-for-uploads-0123\n").unwrap();
    let server = Server::start(&index, &["--read-token", s(&read), "--upload-token", s(&upload), "--max-upload", "1"]);
    let basic = |password: &str| {
        let pair = base64::engine::general_purpose::STANDARD.encode(format!("__token__:{password}"));
        format!("Authorization: Basic {pair}\r\n")
    };
    assert_eq!(get(&server, "/simple/", "").0, 401);
    assert_eq!(get(&server, "/simple/", &basic("a-token-for-readers-0124")).0, 401);
    assert_eq!(get(&server, "/simple/", &basic("a-token-for-readers-0123")).0, 200);

    // Our own push. Who may upload need not be who may read: --simple's page asks for the reader's token.
    let next = wheel(&dir.path().join("w"), "demo", "1.1", "");
    let to = format!("{}/legacy/", server.url);
    let push = |password: &str, w: &Path| {
        Ran::of(
            mirror(&["push", "--to", &to, s(w)]).env("HOME", dir.path()).env("TORCHMILL_UPLOAD_PASSWORD", password),
            dir.path(),
        )
    };
    push("wrong-wrong-wrong-wrong", &next).exits(3).says("401").says("check user, password or token");
    let short = dir.path().join("short");
    std::fs::write(&short, "short").unwrap();
    run(dir.path(), &["serve", "--index", s(&index), "--read-token", s(&short)]).exits(2).says("too short");
    drop(server);

    let server = Server::start(&index, &["--upload-token", s(&upload), "--max-upload", "1"]);
    let to = format!("{}/legacy/", server.url);
    let push = |password: &str, w: &Path| {
        Ran::of(
            mirror(&["push", "--to", &to, s(w)]).env("HOME", dir.path()).env("TORCHMILL_UPLOAD_PASSWORD", password),
            dir.path(),
        )
    };
    push("wrong-wrong-wrong-wrong", &next).exits(3).says("401");
    // As a CI's form leaves it: with the end of a line.
    push("a-token-for-uploads-0123\r\n", &next).exits(0).says("uploaded");
    push("a-token-for-uploads-0123", &next).exits(0).says("already there, the same bytes");
    let other = wheel(&dir.path().join("other"), "demo", "1.1", "Summary: others\n");
    push("a-token-for-uploads-0123", &other).exits(2).says("a published file never changes");
    let big = build_wheel(&dir.path().join("w"), "big", "1.0", "", |_| {});
    let mut state = 1u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    let noise: Vec<u8> = (0..3 << 20).map(|_| random()).collect();
    let padded = build_wheel(&dir.path().join("pad"), "big", "1.0", "", |files| {
        files.insert("big-1.0.dist-info/RECORD.jws".into(), noise.clone());
    });
    assert!(std::fs::metadata(&padded).unwrap().len() > std::fs::metadata(&big).unwrap().len() + (1 << 20));
    push("a-token-for-uploads-0123", &padded).exits(3).says("413");
    // What is named twice is sent once.
    let last = wheel(&dir.path().join("w"), "demo", "1.2", "");
    let mut twice = mirror(&["push", "--to", &to, s(&last), s(&last)]);
    twice.env("HOME", dir.path()).env("TORCHMILL_UPLOAD_PASSWORD", "a-token-for-uploads-0123");
    let ran = Ran::of(&mut twice, dir.path()).exits(0).says("already there, the same bytes");
    assert_eq!(ran.stdout.matches("uploaded").count(), 1, "{}", ran.stdout);
    let log = server.stop();
    assert!(!log.contains("a-token") && !log.contains("wrong-wrong"), "{log}");
    run(dir.path(), &["check", "--index", s(&index)]).exits(0).says("3 files, 0 of 0");
}

/// A free port.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Waits until something answers at `port`.
fn wait_for(port: u16) {
    let started = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(started.elapsed() < Duration::from_secs(300), "nothing listens on {port}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn wheels_are_pushed_to_a_real_pypiserver() {
    let dir = tempfile::tempdir().unwrap();
    let env = clients();
    let packages = dir.path().join("packages");
    std::fs::create_dir(&packages).unwrap();
    let port = free_port();
    let mut command = client(&env, "pypi-server", dir.path());
    command.args(["run", "-p", &port.to_string(), "-i", "127.0.0.1", "-a", ".", "-P", ".", s(&packages)]);
    let _server = Killed(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    wait_for(port);
    let to = format!("http://127.0.0.1:{port}/");
    // As it comes: for what it does not have it sends installers on to a public index, which is not this server.
    let (status, head, _) = raw(&format!("127.0.0.1:{port}"), b"GET /simple/demo/ HTTP/1.0\r\n\r\n");
    assert!((300..400).contains(&status) && head.contains("location: http"), "{head}");
    let (a, b) = (wheel(&dir.path().join("w"), "demo", "1.0", ""), wheel(&dir.path().join("w"), "demo", "1.1+x.1", ""));
    run(dir.path(), &["push", "--to", &to, s(&a)]).exits(0).says("uploaded");
    // A set goes on after what is there.
    run(dir.path(), &["push", "--to", &to, s(&a), s(&b)])
        .exits(0)
        .says("already there")
        .says("demo-1.1+x.1-py3-none-any.whl: uploaded");
    assert_eq!(std::fs::read(packages.join("demo-1.1+x.1-py3-none-any.whl")).unwrap(), std::fs::read(&b).unwrap());
    let other = wheel(&dir.path().join("o"), "demo", "1.0", "Summary: others\n");
    run(dir.path(), &["push", "--to", &to, s(&other)]).exits(2).says("a published file never changes");
    run(dir.path(), &["push", "--to", &format!("http://u:secret@127.0.0.1:{port}/"), s(&a)])
        .exits(2)
        .says("holds a password");
    run(dir.path(), &["push", "--to", &format!("http://127.0.0.1:{}/", free_port()), s(&a)])
        .exits(3)
        .says("does not answer");
}

#[test]
fn wheels_are_pushed_to_a_real_devpi() {
    let dir = tempfile::tempdir().unwrap();
    let env = clients();
    let data = dir.path().join("devpi");
    let init = client(&env, "devpi-init", dir.path())
        .args(["--serverdir", s(&data), "--root-passwd", "a-root-password", "--no-root-pypi"])
        .output()
        .unwrap();
    assert!(init.status.success(), "{init:?}");
    let port = free_port();
    let mut command = client(&env, "devpi-server", dir.path());
    command.args(["--serverdir", s(&data), "--host", "127.0.0.1", "--port", &port.to_string()]);
    let _server = Killed(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    wait_for(port);
    let base = format!("http://127.0.0.1:{port}");
    let user = "root";
    // An index that does not overwrite, made over devpi's own API.
    let auth = base64::engine::general_purpose::STANDARD;
    let login = r#"{"user": "root", "password": "a-root-password"}"#;
    let request = format!(
        "POST /+login HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAccept: application/json\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{login}",
        login.len()
    );
    let (status, _, body) = raw(&base["http://".len()..], request.as_bytes());
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
    let json: Value = serde_json::from_slice(&body).unwrap();
    let session = json["result"]["password"].as_str().unwrap().to_owned();
    let token = auth.encode(format!("root:{session}"));
    // As devpi sets one up: with a mirror of a public index as its base. Here that index is ours, and has the very wheel.
    let a = wheel(&dir.path().join("w"), "demo", "1.0", "");
    let public = dir.path().join("public");
    run(dir.path(), &["add", "--index", s(&public), s(&a)]).exits(0);
    let public = Server::start(&public, &["--quiet"]);
    let mirrored = format!(r#"{{"type": "mirror", "volatile": false, "mirror_url": "{}/simple/"}}"#, public.url);
    for (name, index) in [
        ("public", mirrored.as_str()),
        ("team", r#"{"type": "stage", "volatile": false, "bases": ["root/public"], "mirror_whitelist": ["*"]}"#),
    ] {
        let request = format!(
            "PUT /{user}/{name} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAccept: application/json\r\nX-Devpi-Auth: {token}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{index}",
            index.len()
        );
        let (status, _, body) = raw(&base["http://".len()..], request.as_bytes());
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
    }
    let to = format!("{base}/{user}/team/");
    // The page of the team's index shows what the base has.
    let shown =
        format!("GET /{user}/team/+simple/demo/ HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n");
    let (status, _, body) = raw(&base["http://".len()..], shown.as_bytes());
    let page = String::from_utf8_lossy(&body).into_owned();
    assert!(status == 200 && page.contains("demo-1.0-py3-none-any.whl") && page.contains("/public/+f/"), "{page}");
    let push = |w: &Path, netrc: bool| {
        let mut command = mirror(&["push", "--to", &to, s(w)]);
        let file = dir.path().join("netrc");
        std::fs::write(&file, "machine 127.0.0.1 login root password a-root-password\n").unwrap();
        command.env("HOME", dir.path());
        if netrc {
            command.env("NETRC", &file);
        }
        Ran::of(&mut command, dir.path())
    };
    push(&a, false).exits(3).says("credentials");
    push(&a, true).exits(0).says("uploaded");
    push(&a, true).exits(0).says("already there");
    let other = wheel(&dir.path().join("o"), "demo", "1.0", "Summary: others\n");
    push(&other, true).exits(2).says("a published file never changes");
    let command = dir.path().join("password");
    std::fs::write(&command, "#!/bin/sh\necho username=root\necho password=a-root-password\n").unwrap();
    let mut permissions = std::fs::metadata(&command).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o755);
    std::fs::set_permissions(&command, permissions).unwrap();
    let b = wheel(&dir.path().join("w"), "demo", "1.1", "");
    run(dir.path(), &["push", "--to", &to, "--credential-command", s(&command), s(&b)]).exits(0).says("uploaded");
    let out = dir.path().join("out");
    let simple = format!("{to}+simple/");
    succeeds(client(&env, "python", dir.path()).args([
        "-m",
        "pip",
        "download",
        "--quiet",
        "--index-url",
        &simple,
        "demo==1.1",
        "--dest",
        s(&out),
    ]));
    assert_eq!(std::fs::read(out.join("demo-1.1-py3-none-any.whl")).unwrap(), std::fs::read(&b).unwrap());
}

/// Method and path, and `Authorization`, of each request.
type Asked = std::sync::Arc<std::sync::Mutex<Vec<(String, Option<String>)>>>;

/// A server on loopback that answers as `answer` says (method, path → head and body), and keeps what was asked of it,
/// with the header `Authorization`.
fn scripted(address: &str, answer: impl Fn(&str, &str) -> (String, Vec<u8>) + Send + 'static) -> (String, Asked) {
    let listener = TcpListener::bind(address).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Asked::default();
    let log = std::sync::Arc::clone(&asked);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut reader = BufReader::new(stream);
            let (mut line, mut length, mut authorization) = (String::new(), 0, None);
            let _ = reader.read_line(&mut line);
            loop {
                let mut header = String::new();
                if reader.read_line(&mut header).unwrap_or(0) == 0 || header == "\r\n" {
                    break;
                }
                let (key, value) = header.split_once(':').unwrap();
                match key.to_ascii_lowercase().as_str() {
                    "content-length" => length = value.trim().parse().unwrap(),
                    "authorization" => authorization = Some(value.trim().to_owned()),
                    _ => {}
                }
            }
            let mut words = line.split(' ');
            let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            log.lock().unwrap().push((format!("{method} {path}"), authorization));
            // Who hangs up in the middle of a request is answered nothing.
            if std::io::copy(&mut reader.by_ref().take(length), &mut std::io::sink()).unwrap_or(0) < length {
                continue;
            }
            let (head, body) = answer(method, path);
            let text = format!("HTTP/1.1 {head}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
            let _ = reader.get_mut().write_all(&[text.as_bytes(), &body].concat());
        }
    });
    (url, asked)
}

/// `mirror push` with a password in the environment.
fn push_with_password(dir: &Path, to: &str, w: &Path) -> Ran {
    let mut command = mirror(&["push", "--to", to, s(w)]);
    Ran::of(command.env("HOME", dir).env("TORCHMILL_UPLOAD_PASSWORD", "S3CRET-password"), dir)
}

#[test]
fn credentials_go_to_their_own_origin_and_to_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let w = wheel(&dir.path().join("w"), "demo", "1.0", "");
    let bytes = std::fs::read(&w).unwrap();
    // The other one has the file, and everything else that it is asked for.
    let (other, stolen) = scripted("127.0.0.2:0", move |_, _| ("200 OK".into(), bytes.clone()));
    // Pages and uploads are redirected to it.
    let to = other.clone();
    let (own, asked) = scripted("127.0.0.1:0", move |_, path| (format!("307 Go\r\nLocation: {to}{path}"), Vec::new()));
    let ran = push_with_password(dir.path(), &format!("{own}/up/"), &w).exits(3);
    ran.says("307").says("it sends uploads on to http://127.0.0.2").says("--to");
    assert!(asked.lock().unwrap().iter().all(|(_, a)| a.is_some()), "{asked:?}");
    assert_eq!(*stolen.lock().unwrap(), [], "the other host was asked");
    // A page links to it, without a digest: that is not this server's file, and is not asked for.
    let link = format!("<a href=\"{other}/demo-1.0-py3-none-any.whl\">demo-1.0-py3-none-any.whl</a>");
    let (own, asked) = scripted("127.0.0.1:0", move |method, _| match method {
        "GET" => ("200 OK\r\nContent-Type: text/html".into(), link.clone().into_bytes()),
        _ => ("200 OK".into(), Vec::new()),
    });
    push_with_password(dir.path(), &format!("{own}/up/"), &w).exits(3).says("and does not show it");
    assert!(asked.lock().unwrap().iter().any(|(what, _)| what == "POST /up/"), "{asked:?}");
    assert_eq!(*stolen.lock().unwrap(), []);
    // The user names another index: it is read, without the password.
    let mut command = mirror(&["push", "--to", &format!("{own}/up/"), "--simple", &format!("{other}/simple/"), s(&w)]);
    command.env("HOME", dir.path()).env("TORCHMILL_UPLOAD_PASSWORD", "S3CRET-password");
    Ran::of(&mut command, dir.path());
    let stolen = stolen.lock().unwrap();
    assert!(!stolen.is_empty() && stolen.iter().all(|(_, a)| a.is_none()), "{stolen:?}");
}

#[test]
fn an_upload_that_a_server_throws_away_is_not_called_one() {
    let dir = tempfile::tempdir().unwrap();
    let w = wheel(&dir.path().join("w"), "demo", "1.0", "");
    let (url, _) = scripted("127.0.0.1:0", |method, path| match (method, path) {
        ("GET", "/simple/demo/") => ("200 OK\r\nContent-Type: text/html".into(), b"<html></html>".to_vec()),
        ("POST", _) => ("200 OK".into(), b"thank you".to_vec()),
        _ => ("404 None".into(), Vec::new()),
    });
    push_with_password(dir.path(), &format!("{url}/"), &w)
        .exits(3)
        .says("took demo-1.0-py3-none-any.whl and does not show it");
    let (url, _) = scripted("127.0.0.1:0", |method, _| match method {
        "POST" => ("200 OK".into(), Vec::new()),
        _ => ("404 None".into(), Vec::new()),
    });
    push_with_password(dir.path(), &format!("{url}/"), &w)
        .exits(3)
        .says("its index was not found: name it with --simple");
}

#[test]
fn nothing_is_sent_to_a_server_that_cannot_say_what_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let w = wheel(&dir.path().join("w"), "demo", "1.0", "");
    // The second is what stands before a server says of one that does not answer.
    for status in ["503", "520"] {
        let (url, asked) = scripted("127.0.0.1:0", move |method, path| match (method, path) {
            ("GET", "/simple/demo/") => (format!("{status} Later"), Vec::new()),
            ("POST", _) => ("200 OK".into(), Vec::new()),
            _ => ("404 None".into(), Vec::new()),
        });
        let said = format!("answers {status} for its pages: whether it has 'demo-1.0-py3-none-any.whl' cannot be told");
        push_with_password(dir.path(), &format!("{url}/"), &w).exits(3).says("trying again (4 of 4)").says(&said);
        assert!(asked.lock().unwrap().iter().all(|(what, _)| what.starts_with("GET")), "{asked:?}");
    }
    // One that fails for an address that is not the page's is asked for the page.
    let digest = sha256(&std::fs::read(&w).unwrap());
    let page = format!("<a href=\"/f/x#sha256={digest}\">demo-1.0-py3-none-any.whl</a>");
    let (url, _) = scripted("127.0.0.1:0", move |method, path| match (method, path) {
        ("GET", "/simple/demo/") => ("200 OK\r\nContent-Type: text/html".into(), page.clone().into_bytes()),
        _ => ("500 What".into(), Vec::new()),
    });
    push_with_password(dir.path(), &format!("{url}/"), &w).exits(0).says("already there, the same bytes");
}

#[test]
fn what_another_index_of_the_same_host_has_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let w = wheel(&dir.path().join("w"), "demo", "1.0", "");
    let digest = sha256(&std::fs::read(&w).unwrap());
    let link = |href: &str| format!("<a href=\"{href}#sha256={digest}\">demo-1.0-py3-none-any.whl</a>");
    // The team's index stands beside a mirror of a public one, which has the file. It has another release of the
    // project, nothing of it, or sends on to the mirror for that.
    for team in ["another release", "nothing", "a redirect"] {
        let (mirrored, own) = (link("/f/x"), link("/team/f/x"));
        let taken = std::sync::atomic::AtomicBool::new(false);
        let (url, asked) = scripted("127.0.0.1:0", move |method, path| {
            use std::sync::atomic::Ordering::Relaxed;
            let html = |page: &str| ("200 OK\r\nContent-Type: text/html".to_owned(), page.as_bytes().to_vec());
            match (method, path) {
                ("POST", "/team/") => {
                    taken.store(true, Relaxed);
                    ("200 OK".into(), Vec::new())
                }
                ("GET", "/team/simple/") => html("<title>Simple index</title>"),
                ("GET", "/team/simple/demo/") if taken.load(Relaxed) => html(&own),
                ("GET", "/team/simple/demo/") if team == "another release" => {
                    html("<a href=\"/team/f/y\">demo-0.9-py3-none-any.whl</a>")
                }
                ("GET", "/team/simple/demo/") if team == "a redirect" => {
                    ("302 Go\r\nLocation: /simple/demo/".into(), Vec::new())
                }
                ("GET", "/simple/demo/") => html(&mirrored),
                _ => ("404 None".into(), Vec::new()),
            }
        });
        push_with_password(dir.path(), &format!("{url}/team/"), &w)
            .exits(0)
            .says("demo-1.0-py3-none-any.whl: uploaded");
        assert!(asked.lock().unwrap().iter().any(|(what, _)| what == "POST /team/"), "{team}: {asked:?}");
        push_with_password(dir.path(), &format!("{url}/team/"), &w).exits(0).says("already there, the same bytes");
    }
    // A server whose only index stands at its root, wherever uploads go.
    let page = link("/f/x");
    let (url, asked) = scripted("127.0.0.1:0", move |method, path| match (method, path) {
        ("GET", "/simple/demo/") => ("200 OK\r\nContent-Type: text/html".into(), page.clone().into_bytes()),
        _ => ("404 None".into(), Vec::new()),
    });
    push_with_password(dir.path(), &format!("{url}/legacy/"), &w).exits(0).says("already there, the same bytes");
    assert!(asked.lock().unwrap().iter().all(|(what, _)| what.starts_with("GET")), "{asked:?}");
    // An index that is named is followed on its host: some servers know theirs by a number.
    let page = link("/f/x");
    let (url, _) = scripted("127.0.0.1:0", move |method, path| match (method, path) {
        ("GET", "/feed/simple/demo/") => ("302 Go\r\nLocation: /0123/simple/demo/".into(), Vec::new()),
        ("GET", "/0123/simple/demo/") => ("200 OK\r\nContent-Type: text/html".into(), page.clone().into_bytes()),
        _ => ("404 None".into(), Vec::new()),
    });
    let (to, simple) = (format!("{url}/feed/"), format!("{url}/feed/simple/"));
    let mut command = mirror(&["push", "--to", &to, "--simple", &simple, s(&w)]);
    command.env("HOME", dir.path()).env("TORCHMILL_UPLOAD_PASSWORD", "S3CRET-password");
    Ran::of(&mut command, dir.path()).exits(0).says("already there, the same bytes");
}

#[test]
fn a_release_that_a_server_has_under_another_spelling_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let w = wheel(&dir.path().join("w"), "demo", "1.0", "");
    for (digest, code) in [(sha256(&std::fs::read(&w).unwrap()), 0), ("0".repeat(64), 2)] {
        let page = format!("<a href=\"/f/x#sha256={digest}\">Demo-1.0.0-py3-none-any.whl</a>");
        let (url, asked) = scripted("127.0.0.1:0", move |method, path| match (method, path) {
            ("GET", "/simple/demo/") => ("200 OK\r\nContent-Type: text/html".into(), page.clone().into_bytes()),
            _ => ("404 None".into(), Vec::new()),
        });
        let ran = push_with_password(dir.path(), &format!("{url}/"), &w).exits(code);
        ran.says(if code == 0 { "demo-1.0-py3-none-any.whl" } else { "has 'Demo-1.0.0-py3-none-any.whl' with" });
        assert!(asked.lock().unwrap().iter().all(|(what, _)| what.starts_with("GET")), "{asked:?}");
    }
    // Two spellings of one release in one push, of other bytes: nothing is asked.
    let other = wheel(&dir.path().join("w"), "demo", "1.0.0", "");
    let (url, asked) = scripted("127.0.0.1:0", |_, _| ("404 None".into(), Vec::new()));
    let ran = run(dir.path(), &["push", "--to", &format!("{url}/"), s(&w), s(&other)]).exits(2);
    ran.says("are one release with other bytes");
    assert!(asked.lock().unwrap().iter().all(|(what, _)| !what.starts_with("POST")), "{asked:?}");
}

#[test]
fn an_index_that_others_wrote_to_leads_nowhere_outside() {
    let dir = tempfile::tempdir().unwrap();
    let (index, precious) = (dir.path().join("index"), dir.path().join("precious"));
    std::fs::write(&precious, "mine").unwrap();
    let w = dir.path().join("w");
    for version in ["1.0", "1.1"] {
        run(dir.path(), &["add", "--index", s(&index), s(&wheel(&w, "demo", version, ""))]).exits(0);
    }
    // A page whose names are paths: nothing there is removed.
    let page = index.join("simple/demo/index.json");
    let right = std::fs::read_to_string(&page).unwrap();
    let with_beside =
        |name: &str| right.replacen("\"_beside\":{}", &format!("\"_beside\":{{\"{name}\":\"{}\"}}", "0".repeat(64)), 1);
    let beside = with_beside("../../../precious");
    assert_ne!(beside, right);
    // What goes with one wheel is not another.
    let another = with_beside("demo-1.1-py3-none-any.whl");
    let renamed = right.replacen("demo-1.0-py3", "../../demo-1.0-py3", 1);
    let of_another = right.replacen("\"name\":\"demo\"", "\"name\":\"../..\"", 1);
    for bad in [beside, another, renamed, of_another] {
        std::fs::write(&page, bad).unwrap();
        for args in [&["remove", "demo-1.0-py3-none-any.whl"][..], &["prune", "--keep", "1"], &["list"], &["check"]] {
            let args = [&args[..1], &["--index", s(&index)], &args[1..]].concat();
            let args = if args[0] == "remove" { [&args[..], &["--reason", "x"]].concat() } else { args };
            run(dir.path(), &args).exits(2).says("is damaged");
        }
        assert_eq!(std::fs::read_to_string(&precious).unwrap(), "mine");
        assert!(index.join("files/demo/demo-1.1-py3-none-any.whl").exists());
    }
    std::fs::write(&page, right).unwrap();
    // A change that somebody else left there: it is not made.
    let left = index.join(".incoming-planted");
    for commit in [
        serde_json::json!({ "moves": [["x", s(&dir.path().join("reached"))]], "gone": [] }),
        serde_json::json!({ "moves": [["x", "../reached"]], "gone": [] }),
        serde_json::json!({ "moves": [["../../precious", "files/x"]], "gone": [] }),
        serde_json::json!({ "moves": [], "gone": ["../precious"] }),
    ] {
        std::fs::create_dir_all(&left).unwrap();
        for (name, text) in [("lock", String::new()), ("x", "planted".into()), ("commit.json", commit.to_string())] {
            std::fs::write(left.join(name), text).unwrap();
        }
        let more = wheel(&w, "demo", "1.2", "");
        run(dir.path(), &["add", "--index", s(&index), s(&more)]).exits(2).says("outside of the index");
        assert!(!dir.path().join("reached").exists());
        assert_eq!(std::fs::read_to_string(&precious).unwrap(), "mine");
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::symlink;
        let home = dir.path().join("home");
        std::fs::create_dir_all(&home).unwrap();
        std::fs::write(home.join("key"), "mine").unwrap();
        // Over links: of the folder that was left, and of the index.
        symlink(&home, left.join("sub")).unwrap();
        symlink(&home, index.join("files/way")).unwrap();
        for commit in [
            serde_json::json!({ "moves": [["sub/key", "files/x"]], "gone": [] }),
            serde_json::json!({ "moves": [["x", "files/way/key"]], "gone": [] }),
            serde_json::json!({ "moves": [], "gone": ["files/way/key"] }),
        ] {
            std::fs::write(left.join("x"), "planted").unwrap();
            std::fs::write(left.join("commit.json"), commit.to_string()).unwrap();
            let more = wheel(&w, "demo", "1.2", "");
            run(dir.path(), &["add", "--index", s(&index), s(&more)]).exits(2).says("is a link");
            assert_eq!(std::fs::read_to_string(home.join("key")).unwrap(), "mine");
        }
        std::fs::remove_file(index.join("files/way")).unwrap();
        std::fs::remove_dir_all(&left).unwrap();
        // The folder of a project's files is a link: nothing there is removed.
        std::fs::rename(index.join("files/demo"), dir.path().join("elsewhere")).unwrap();
        symlink(dir.path().join("elsewhere"), index.join("files/demo")).unwrap();
        let remove = ["remove", "--index", s(&index), "--reason", "x", "demo-1.0-py3-none-any.whl"];
        run(dir.path(), &remove).exits(2).says("is damaged");
        assert!(dir.path().join("elsewhere/demo-1.0-py3-none-any.whl").exists());
        std::fs::remove_file(index.join("files/demo")).unwrap();
        std::fs::rename(dir.path().join("elsewhere"), index.join("files/demo")).unwrap();
        std::fs::create_dir_all(&left).unwrap();
    }
    #[cfg(unix)]
    {
        // Pipes, which nobody ever writes to.
        for name in ["lock", "commit.json"] {
            let _ = std::fs::remove_dir_all(&left);
            std::fs::create_dir_all(&left).unwrap();
            std::fs::write(left.join("lock"), "").unwrap();
            let _ = std::fs::remove_file(left.join(name));
            succeeds(Command::new("mkfifo").arg(left.join(name)));
            run(dir.path(), &["add", "--index", s(&index), s(&wheel(&w, "demo", "1.2", ""))]).exits(0);
        }
    }
    let _ = std::fs::remove_dir_all(left);
    run(dir.path(), &["check", "--index", s(&index)]).exits(0);
}

#[test]
fn what_others_wrote_to_a_page_is_shown_as_text_and_not_written_down_as_good() {
    let dir = tempfile::tempdir().unwrap();
    let index = dir.path().join("index");
    run(dir.path(), &["add", "--index", s(&index), s(&wheel(&dir.path().join("w"), "demo", "1.0", ""))]).exits(0);
    let page = index.join("simple/demo/index.json");
    let good: Value = serde_json::from_slice(&std::fs::read(&page).unwrap()).unwrap();
    let out = dir.path().join("wheels.lock");
    let lock = || run(dir.path(), &["lock", "--index", s(&index), "--out", s(&out)]);
    lock().exits(0);
    std::fs::remove_file(&out).unwrap();
    for (key, value, why) in [
        ("hashes", serde_json::json!({}), "'' of demo-1.0-py3-none-any.whl is no SHA-256"),
        (
            "hashes",
            serde_json::json!({ "sha256": "../../etc" }),
            "'../../etc' of demo-1.0-py3-none-any.whl is no SHA-256",
        ),
        ("upload-time", "yesterday".into(), "'yesterday' of demo-1.0-py3-none-any.whl is no time"),
        (
            "_beside",
            serde_json::json!({ "demo-1.0-py3-none-any.manifest.json": "" }),
            "'' of demo-1.0-py3-none-any.whl is no SHA-256",
        ),
    ] {
        let mut bad = good.clone();
        bad["files"][0][key] = value;
        std::fs::write(&page, bad.to_string()).unwrap();
        lock().exits(2).says(why).says("`mirror check` says what else is wrong");
        assert!(!out.exists(), "{key}");
        run(dir.path(), &["check", "--index", s(&index)]).exits(1);
    }
    // Sizes of which no sum can be told.
    let mut huge = good.clone();
    let file = |version: &str| {
        let mut file = good["files"][0].clone();
        file["filename"] = format!("demo-{version}-py3-none-any.whl").into();
        file["_version"] = version.into();
        file["size"] = u64::MAX.into();
        file
    };
    huge["files"] = serde_json::json!([file("0.8"), file("0.9"), file("1.0")]);
    std::fs::write(&page, huge.to_string()).unwrap();
    run(dir.path(), &["prune", "--index", s(&index), "--keep", "1", "--dry-run"]).exits(0).says("2 files, ");
    let mut bad = good.clone();
    bad["files"][0]["_version"] = "1.0\u{1b}[31m\nnothing  else".into();
    bad["files"][0]["upload-time"] = "20\u{1b}[2J\u{7}-01-01".into();
    std::fs::write(&page, bad.to_string()).unwrap();
    let ran = run(dir.path(), &["list", "--index", s(&index)]).exits(0).says("1.0\\u{1b}[31m\\nnothing  else");
    assert!(!ran.stdout.contains(['\u{1b}', '\u{7}']) && ran.stdout.lines().count() == 3, "{:?}", ran.stdout);
    // A reason may be longer than a column can be wide.
    std::fs::write(&page, good.to_string()).unwrap();
    let reason = "long ".repeat(20_000);
    run(dir.path(), &["yank", "--index", s(&index), "demo-1.0-py3-none-any.whl", "--reason", &reason]).exits(0);
    let ran = run(dir.path(), &["list", "--index", s(&index)]).exits(0).says("yanked: long long ");
    assert!(ran.stdout.lines().all(|line| line.chars().count() < 400), "{}", ran.stdout);
    // One that is larger than any of ours is read no further: ten gigabytes, of which none is on the disk.
    std::fs::File::options().write(true).open(&page).unwrap().set_len(10 << 30).unwrap();
    run(dir.path(), &["list", "--index", s(&index)]).exits(2).says("it has more than 268435456 bytes");
    let server = Server::start(&index, &["--quiet"]);
    assert_eq!(get(&server, "/simple/demo/", "Accept: application/vnd.pypi.simple.v1+json\r\n").0, 404);
    assert_eq!(get(&server, "/files/demo/demo-1.0-py3-none-any.whl", "").0, 404);
    answers_within_a_second(&server, "with a page of ten gigabytes");
    // Why something was removed is shown as text, too.
    std::fs::write(&page, good.to_string()).unwrap();
    let remove =
        |why: &str| run(dir.path(), &["remove", "--index", s(&index), "demo-1.0-py3-none-any.whl", "--reason", why]);
    remove("a bug\nerror: none").exits(0);
    remove("again").exits(2).says(": a bug\\nerror: none");
}

#[test]
fn a_statement_that_nobody_signed_is_not_published_as_a_signed_one() {
    let dir = tempfile::tempdir().unwrap();
    let w = wheel(&dir.path().join("w"), "demo", "1.0", "");
    let index = dir.path().join("index");
    let digest = sha256(&std::fs::read(&w).unwrap());
    let statement = serde_json::json!({
        "_type": "https://in-toto.io/Statement/v1", "predicate": {},
        "subject": [{ "name": "demo-1.0-py3-none-any.whl", "digest": { "sha256": digest } }],
        "predicateType": "https://slsa.dev/provenance/v1",
    });
    let payload = base64::engine::general_purpose::STANDARD.encode(statement.to_string());
    let beside = w.with_file_name("demo-1.0-py3-none-any.provenance.dsse.json");
    let envelope = |signatures: Value| {
        let all = serde_json::json!({
            "payload": payload, "payloadType": "application/vnd.in-toto+json", "signatures": signatures,
        });
        std::fs::write(&beside, all.to_string()).unwrap();
    };
    for (text, says) in [("{}", "no in-toto statement"), ("junk", "no in-toto statement")] {
        std::fs::write(&beside, text).unwrap();
        run(dir.path(), &["add", "--index", s(&index), s(&w)]).exits(2).says(says);
    }
    std::fs::write(&beside, statement.to_string()).unwrap();
    run(dir.path(), &["add", "--index", s(&index), s(&w)]).exits(2).says("nobody signed").says("remove this file");
    let whole = base64::engine::general_purpose::STANDARD.encode([7; 64]);
    for signatures in [serde_json::json!([]), serde_json::json!([{ "keyid": "", "sig": "AAAA" }])] {
        envelope(signatures);
        run(dir.path(), &["add", "--index", s(&index), s(&w)]).exits(2).says("nobody signed");
    }
    envelope(serde_json::json!([{ "keyid": "", "sig": whole }]));
    run(dir.path(), &["add", "--index", s(&index), s(&w)]).exits(0);
}

#[test]
fn no_password_stands_in_a_message() {
    let dir = tempfile::tempdir().unwrap();
    let w = wheel(&dir.path().join("w"), "demo", "1.0", "");
    for to in [
        "https://bob:S3CRET@127.0.0.1:99999/",
        "ftp://bob:S3CRET@h/",
        "http://bob:S3CRET@127.0.0.1:1/",
        "http://S3CRET@127.0.0.1:1/",
        "https://bob:S3CRET/more@127.0.0.1/",
        "https://bob:x?S3CRET@127.0.0.1/",
        "https:/bob:S3CRET@127.0.0.1:1/",
        "https:\\\\bob:S3CRET@127.0.0.1:1/",
        "bob:S3CRET@127.0.0.1",
        "https://bob:12/S3CRET@127.0.0.1/",
    ] {
        for args in
            [vec!["push", "--to", to, s(&w)], vec!["push", "--to", "http://127.0.0.1:1/", "--simple", to, s(&w)]]
        {
            let ran = run(dir.path(), &args).exits(2);
            assert!(!ran.stderr.contains("S3CRET") && !ran.stdout.contains("S3CRET"), "{to}: {}", ran.stderr);
        }
        let mut inspect = Command::new(env!("CARGO_BIN_EXE_torchmill"));
        let ran = Ran::of(inspect.args(["inspect", &to.replace("ftp", "https")]).current_dir(root()), dir.path());
        assert!(!ran.stderr.contains("S3CRET") && ran.code != Some(0), "{to}: {}", ran.stderr);
    }
    // A server that shows what it was sent.
    let shows = b"no: Basic X190b2tlbl9fOlMzQ1JFVC1wYXNzd29yZA== is __token__:S3CRET-password".to_vec();
    let (url, _) = scripted("127.0.0.1:0", move |method, _| match method {
        "POST" => ("400 No".into(), shows.clone()),
        _ => ("404 None".into(), Vec::new()),
    });
    let ran =
        push_with_password(dir.path(), &format!("{url}/?token=S3CRET"), &w).exits(3).says("Basic *** is __token__:***");
    assert!(!ran.stderr.contains("S3CRET"), "{}", ran.stderr);
    // A token in place of the file that holds it.
    let index = dir.path().join("index");
    run(dir.path(), &["add", "--index", s(&index), s(&w)]).exits(0);
    let ran = run(dir.path(), &["serve", "--index", s(&index), "--read-token", "S3CRET-S3CRET-S3CRET"]).exits(2);
    assert!(!ran.stderr.contains("S3CRET"), "{}", ran.stderr);
    ran.says("give the path of a file that holds the token");
    // What is no argument at all is repeated without it, by whichever name the program is called.
    let key = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIS3CRET=\n-----END PRIVATE KEY-----\n";
    for args in [
        vec!["verify", s(&w), "--key", key],
        vec!["rebuild", s(&w), "--key", key],
        vec!["publish", "--index", s(&index), "--key", key, s(&w)],
        vec!["sign", s(&w), "--key", key],
        vec!["mirror", "push", "--to", key, s(&w)],
        vec!["mirror", "serve", "--index", s(&index), "--port", "https://bob:S3CRET@h"],
        vec!["mirror", "list", "--index", s(&index), "--json", "--bob:S3CRET@h"],
    ] {
        for caller in ["torchmill", "another"] {
            let mut typed = Command::new(env!("CARGO_BIN_EXE_torchmill"));
            typed.args(&args).current_dir(root()).env("CARGO_PKG_NAME", caller);
            let ran = Ran::of(&mut typed, dir.path()).exits(2);
            assert!(!ran.stderr.contains("S3CRET") && !ran.stdout.contains("S3CRET"), "{}{}", ran.stdout, ran.stderr);
        }
    }
    // What happens is told without it: to people, as JSON, and in a log.
    let workspace = Workspace::new();
    let source = format!("git+http://bob:S3CRET@127.0.0.1:1/x#{}", "a".repeat(40));
    workspace.write("recipes/x.toml", recipe("").replace("file:uv.tar", &source));
    for more in [vec![], vec!["--json"], vec!["-vv", "--log", "told"]] {
        let ran = workspace.run(&[&["lock", "--recipe", "x"][..], more.as_slice()].concat()).exits(3);
        assert!(!ran.stderr.contains("S3CRET") && !ran.stdout.contains("S3CRET"), "{}{}", ran.stdout, ran.stderr);
        ran.says("fetching http://…@127.0.0.1:1/x at aaaaaaaaaaaa");
    }
    let told = std::fs::read_to_string(workspace.path().join("told")).unwrap();
    assert!(told.contains("fetching http://…@127.0.0.1:1/x") && !told.contains("S3CRET"), "{told}");
}

#[test]
fn a_team_lists_promotes_prunes_and_makes_again() {
    let dir = tempfile::tempdir().unwrap();
    let (staging, stable) = (dir.path().join("staging"), dir.path().join("stable"));
    let w = dir.path().join("dist");
    for version in ["1.0", "1.1", "1.2"] {
        wheel(&w, "demo", version, "Requires-Dist: dep>=2\nRequires-Dist: only_there; sys_platform == 'win32'\n");
    }
    std::fs::write(w.join("demo-1.2-py3-none-any.manifest.json"), "{}").unwrap();
    wheel(&w, "dep", "1.0", "");
    // A folder; what is missing is named, and what only Windows needs is not.
    let ran = run(dir.path(), &["add", "--index", s(&staging), s(&w)]).exits(0);
    ran.says("needs dep>=2, which this index does not have");
    let json: Value =
        serde_json::from_str(&run(dir.path(), &["check", "--index", s(&staging), "--json"]).exits(0).stdout).unwrap();
    assert_eq!(json["missing"].as_array().unwrap().len(), 1, "{json}");
    // A requirements file: the wheel beside it, if it has the digest that the file says.
    let more = dir.path().join("more");
    let dep = wheel(&more, "dep", "2.0", "");
    let digest = sha256(&std::fs::read(&dep).unwrap());
    let requirements = more.join("requirements.txt");
    std::fs::write(&requirements, "dep==2.0\n").unwrap();
    run(dir.path(), &["add", "--index", s(&staging), s(&requirements)]).exits(2).says("dep==2.0 has no --hash");
    std::fs::write(&requirements, format!("# all of it\ndep==2.0 \\\n    --hash=sha256:{digest}\n")).unwrap();
    let ran = run(dir.path(), &["add", "--index", s(&staging), s(&requirements)])
        .exits(0)
        .says("dep-2.0-py3-none-any.whl: published");
    assert!(!ran.stdout.contains("does not have"), "{}", ran.stdout);

    run(dir.path(), &["yank", "--index", s(&staging), "demo-1.1-py3-none-any.whl", "--reason", "broken"]).exits(0);
    let ran = run(dir.path(), &["list", "--index", s(&staging), "demo"]).exits(0);
    assert!(
        ran.stdout.starts_with("project  version  for") && ran.stdout.ends_with("3 files of 1 project\n"),
        "{}",
        ran.stdout
    );
    ran.says("yanked: broken").says("py3-none-any");
    let json: Value =
        serde_json::from_str(&run(dir.path(), &["list", "--index", s(&staging), "--json"]).exits(0).stdout).unwrap();
    assert_eq!(json["files"].as_array().unwrap().len(), 5);
    assert_eq!(json["files"][1]["yanked"], "broken");
    run(dir.path(), &["list", "--index", s(&staging), "demi"]).exits(2).says("is 'demo' meant?");

    // All or nothing: one file is not what its page says, and nothing is promoted.
    let copy =
        |which: &[&str]| run(dir.path(), &[&["copy", "--from", s(&staging), "--to", s(&stable)][..], which].concat());
    copy(&["demo==1.1"]).exits(2).says("of 'demo==1.1' is yanked");
    let path = staging.join("files/dep/dep-2.0-py3-none-any.whl");
    let good = std::fs::read(&path).unwrap();
    std::fs::copy(wheel(&dir.path().join("changed"), "dep", "2.0", "Summary: changed\n"), &path).unwrap();
    copy(&[]).exits(1).says("its page says").says("nothing was promoted");
    assert!(!stable.exists());
    std::fs::write(&path, good).unwrap();
    // What lies beside a file is promoted with it, if it is what was published.
    let manifest = staging.join("files/demo/demo-1.2-py3-none-any.manifest.json");
    std::fs::write(&manifest, "{ }").unwrap();
    copy(&["demo"]).exits(1).says("'demo-1.2-py3-none-any.manifest.json' beside").says("nothing was promoted");
    std::fs::write(&manifest, "{}").unwrap();
    let planted = staging.join("files/demo/demo-1.0-py3-none-any.validate.html");
    std::fs::write(&planted, "<html></html>").unwrap();
    copy(&["demo"]).exits(1).says("'demo-1.0-py3-none-any.validate.html' beside");
    std::fs::remove_file(planted).unwrap();
    assert!(!stable.join("simple/demo").exists());
    // What the index that gets it lacks is named.
    let alone = dir.path().join("alone");
    run(dir.path(), &["copy", "--from", s(&staging), "--to", s(&alone), "demo==1.2"])
        .exits(0)
        .says("demo-1.2-py3-none-any.whl needs dep>=2, which this index does not have");
    copy(&["demo-1.1-py3-none-any.whl"]).exits(2).says("is yanked");
    copy(&["demo==9"]).exits(2).says("has nothing by the name 'demo==9'");
    copy(&["Demo==1.2.0", "dep"]).exits(0).says("demo-1.2-py3-none-any.whl: published").says("dep-2.0");
    run(dir.path(), &["check", "--index", s(&stable)]).exits(0).says("3 files, 0 of 0");
    assert!(stable.join("files/demo/demo-1.2-py3-none-any.manifest.json").is_file());

    // Retention: shown, then done; the newest always stays.
    run(dir.path(), &["prune", "--index", s(&staging)]).exits(2).says("--keep");
    let prune =
        |more: &[&str]| run(dir.path(), &[&["prune", "--index", s(&staging), "--keep", "1"][..], more].concat());
    prune(&["--older-than", "1"]).exits(0).says("0 files");
    prune(&["--dry-run"])
        .exits(0)
        .says("would remove demo-1.0")
        .says("would remove demo-1.1")
        .says("would remove dep-1.0")
        .says("3 files");
    run(dir.path(), &["check", "--index", s(&staging)]).exits(0).says("5 files");
    prune(&["demo"]).exits(0).says("removed demo-1.0").says("2 files");
    run(dir.path(), &["check", "--index", s(&staging)]).exits(0).says("3 files, 0 of 0");

    // Lost, and made again: files, times, yanks, what was removed.
    run(dir.path(), &["yank", "--index", s(&staging), "dep-1.0-py3-none-any.whl", "--reason", "old"]).exits(0);
    let lock = dir.path().join("wheels.lock");
    run(dir.path(), &["lock", "--index", s(&staging), "--out", s(&lock)]).exits(0);
    let again = dir.path().join("again");
    let make = |from: &[&Path]| {
        let mut args = vec!["make", "--index", s(&again), "--lock", s(&lock), "--offline"];
        from.iter().for_each(|f| args.extend(["--from", s(f)]));
        run(dir.path(), &args)
    };
    make(&[&w]).exits(2).says("1 of 3 files are found nowhere: dep-2.0-py3-none-any.whl");
    make(&[&w, &more]).exits(0);
    for page in ["simple/demo/index.json", "simple/dep/index.json", "simple/index.json", "index.html"] {
        assert_eq!(
            std::fs::read_to_string(again.join(page)).unwrap(),
            std::fs::read_to_string(staging.join(page)).unwrap()
        );
    }
    run(dir.path(), &["check", "--index", s(&again)]).exits(0).says("3 files, 0 of 0");
    make(&[&w, &more]).exits(2).says("holds something already");
    let text = std::fs::read_to_string(&lock).unwrap();
    std::fs::write(&lock, text.replacen("sha256 = \"", "sha256 = \"../", 1)).unwrap();
    make(&[&w]).exits(2).says("is no SHA-256");
    // What is published was not removed under another spelling, and stands there once.
    std::fs::write(&lock, text.replacen("demo-1.1-py3", "demo-1.2.0-py3", 1)).unwrap();
    make(&[&w]).exits(2).says("are one release");
}

#[test]
fn the_newest_release_stays_also_where_it_is_yanked() {
    let dir = tempfile::tempdir().unwrap();
    let (index, w) = (dir.path().join("index"), dir.path().join("w"));
    for version in ["1.0", "1.1", "2.0"] {
        wheel(&w, "demo", version, "");
    }
    run(dir.path(), &["add", "--index", s(&index), s(&w)]).exits(0);
    let file = |version: &str| format!("demo-{version}-py3-none-any.whl");
    let yank = |version: &str| {
        run(dir.path(), &["yank", "--index", s(&index), &file(version), "--reason", "broken"]).exits(0);
    };
    let prune = |rule: &[&str]| run(dir.path(), &[&["prune", "--index", s(&index)][..], rule].concat()).exits(0);
    let holds = || -> Vec<String> {
        let listed = run(dir.path(), &["list", "--index", s(&index), "--json"]).exits(0);
        let json: Value = serde_json::from_str(&listed.stdout).unwrap();
        json["files"].as_array().unwrap().iter().map(|f| f["filename"].as_str().unwrap().to_owned()).collect()
    };
    // For those who pin it; for the others the newest that is not yanked.
    yank("2.0");
    prune(&["--keep", "1"]).says("removed demo-1.0").says("1 files");
    assert_eq!(holds(), [file("1.1"), file("2.0")]);
    // Where all are, the newest of them.
    yank("1.1");
    prune(&["--keep", "1"]).says("removed demo-1.1").says("1 files");
    prune(&["--yanked"]).says("0 files");
    assert_eq!(holds(), [file("2.0")]);
    // One file of a release that stays.
    let new = wheel(&w, "demo", "3.0", "");
    let second = dir.path().join(file("3.0-1"));
    std::fs::copy(wheel(&dir.path().join("second"), "demo", "3.0", "Summary: built again\n"), &second).unwrap();
    run(dir.path(), &["add", "--index", s(&index), s(&new), s(&second)]).exits(0);
    yank("3.0");
    prune(&["--keep", "2"]).says("0 files");
    // Only what is yanked goes by that rule.
    prune(&["--yanked", "--older-than", "1"]).says("0 files");
    prune(&["--yanked"]).says("removed demo-2.0").says("removed demo-3.0-py3").says("2 files");
    assert_eq!(holds(), [file("3.0-1")]);
    run(dir.path(), &["check", "--index", s(&index)]).exits(0).says("1 files, 0 of 0");
    // Builds of one release.
    let builds = ["4.0+cpu", "4.0+cu130"].map(|version| wheel(&w, "demo", version, ""));
    run(dir.path(), &["add", "--index", s(&index), s(&builds[0]), s(&builds[1])]).exits(0);
    prune(&["--keep", "1"]).says("removed demo-3.0-1").says("1 files");
    assert_eq!(holds(), [file("4.0+cpu"), file("4.0+cu130")]);
}

#[test]
fn releases_of_a_package_index_come_with_what_they_depend_on() {
    let dir = tempfile::tempdir().unwrap();
    // The package index is one of ours.
    let w = dir.path().join("w");
    let public = dir.path().join("public");
    let wheels = [
        wheel(&w, "demo", "1.0", "Requires-Dist: dep>=1,<3\nRequires-Dist: extra_only; extra == 'more'\n"),
        wheel(&w, "dep", "1.0", ""),
        wheel(&w, "dep", "2.0", "Requires-Dist: leaf\n"),
        wheel(&w, "dep", "2.5rc1", ""),
        wheel(&w, "dep", "3.0", ""),
        wheel(&w, "leaf", "1.0", ""),
        build_wheel(&w, "leaf", "2.0", "Requires-Python: >=3.99\n", |_| {}),
    ];
    let paths: Vec<&str> = wheels.iter().map(|p| s(p)).collect();
    run(dir.path(), &[&["add", "--index", s(&public)][..], &paths].concat()).exits(0);
    let server = Server::start(&public, &["--quiet"]);
    let index = dir.path().join("index");
    let add = |more: &[&str]| {
        let mut command = mirror(&[&["add", "--index", s(&index), "--python", "3.11"][..], more].concat());
        Ran::of(command.env("HOME", dir.path()).env("PIP_INDEX_URL", format!("{}/simple", server.url)), dir.path())
    };
    add(&["pypi:demo"]).exits(2).says("names no exact version");
    add(&["pypi:demo==9"]).exits(2).says("has no wheel of demo 9");
    add(&["pypi:nothing==1.0"]).exits(2).says("the package index has no 'nothing'");
    add(&[s(&wheel(&w, "lonely", "1.0", "Requires-Dist: nothing>=2\n")), "--with-deps"])
        .exits(2)
        .says("getting 'nothing>=2', which lonely-1.0-py3-none-any.whl needs");
    add(&["no-such-folder"]).exits(2).says("no-such-folder: there is no such file or folder");
    add(&["pypi:demo==1.0"]).exits(0).says("demo-1.0-py3-none-any.whl: published").says("needs dep");
    let ran = add(&["pypi:demo==1.0", "--with-deps"]).exits(0);
    ran.says("already there").says("dep-2.0-py3-none-any.whl: published").says("leaf-1.0-py3-none-any.whl: published");
    run(dir.path(), &["check", "--index", s(&index)]).exits(0).says("3 files, 0 of 0");
    // What something needs that the index has comes along, too.
    run(dir.path(), &["remove", "--index", s(&index), "leaf-1.0-py3-none-any.whl", "--reason", "by mistake"]).exits(0);
    add(&["pypi:demo==1.0", "--with-deps"]).exits(0).says("leaf-1.0-py3-none-any.whl: published");
    // Other bytes than its page promises are not taken.
    let served = public.join("files/dep/dep-3.0-py3-none-any.whl");
    let size = std::fs::metadata(&served).unwrap().len();
    std::fs::write(&served, vec![0; size as usize]).unwrap();
    add(&["pypi:dep==3.0"]).exits(3).says("was promised");
    run(dir.path(), &["check", "--index", s(&index)]).exits(0).says("3 files, 0 of 0");
    for python in ["3", "3.+11", "3.", "3.x", "2.7"] {
        add(&["--python", python, "pypi:dep==2.0"]).exits(2).says(&format!("'{python}' is no version of Python 3"));
    }
}

#[test]
fn a_page_of_an_index_is_read_where_it_stands_and_for_its_own_project_alone() {
    let dir = tempfile::tempdir().unwrap();
    let w = dir.path().join("w");
    let [demo, evil] = ["demo", "evil"].map(|name| std::fs::read(wheel(&w, name, "1.0", "")).unwrap());
    let link = |href: &str, name: &str, bytes: &[u8]| {
        format!("<a href=\"{href}#sha256={}\">{name}-1.0-py3-none-any.whl</a>", sha256(bytes))
    };
    let port = free_port();
    // A page that redirects lead to, with a wheel of another project before its own; one with whole addresses.
    let moved = link("../../f/evil", "evil", &evil) + &link("../../f/demo", "demo", &demo);
    let whole = link(&format!("http://127.0.0.1:{port}/real/f/demo"), "demo", &demo);
    let (_, asked) = scripted(&format!("127.0.0.1:{port}"), move |_, path| {
        let html = |page: &str| ("200 OK\r\nContent-Type: text/html".to_owned(), page.as_bytes().to_vec());
        match path {
            "/moved/simple/demo/" => ("302 Go\r\nLocation: /real/simple/demo/".into(), Vec::new()),
            "/real/simple/demo/" => html(&moved),
            "/whole/simple/demo/" => html(&whole),
            "/real/f/demo" => ("200 OK".into(), demo.clone()),
            "/real/f/evil" => ("200 OK".into(), evil.clone()),
            _ => ("404 None".into(), Vec::new()),
        }
    });
    for at in ["moved", "whole"] {
        let index = dir.path().join(at);
        let mut command = mirror(&["add", "--index", s(&index), "--python", "3.11", "pypi:demo==1.0"]);
        let url = format!("http://me:S3CRET@127.0.0.1:{port}/{at}/simple");
        let ran = Ran::of(command.env("HOME", dir.path()).env("PIP_INDEX_URL", url), dir.path()).exits(0);
        ran.says("demo-1.0-py3-none-any.whl: published");
        run(dir.path(), &["list", "--index", s(&index)]).exits(0).says("1 file of 1 project");
    }
    // What stands where the user and the password are for is asked for with them.
    let files: Vec<_> = asked.lock().unwrap().iter().filter(|(what, _)| what.contains("/real/f/")).cloned().collect();
    let with_them = ("GET /real/f/demo".to_owned(), Some("Basic bWU6UzNDUkVU".to_owned()));
    assert_eq!(files, [with_them.clone(), with_them]);
}

#[test]
fn of_a_release_that_is_yanked_in_part_the_rest_comes_along() {
    let dir = tempfile::tempdir().unwrap();
    let (w, public) = (dir.path().join("w"), dir.path().join("public"));
    // Of what is left the last build (PEP 427).
    let builds = ["2", "10", "11"].map(|build| {
        let path = w.join(format!("dep-2.0-{build}-py3-none-any.whl"));
        std::fs::rename(wheel(&w, "dep", "2.0", &format!("Summary: build {build}\n")), &path).unwrap();
        path
    });
    let [two, ten, eleven] = &builds;
    let dep = wheel(&w, "dep", "2.0", "");
    run(dir.path(), &["add", "--index", s(&public), s(&dep), s(two), s(ten), s(eleven)]).exits(0);
    run(dir.path(), &["yank", "--index", s(&public), "dep-2.0-11-py3-none-any.whl"]).exits(0);
    let server = Server::start(&public, &["--quiet"]);
    let demo = wheel(&w, "demo", "1.0", "Requires-Dist: dep\n");
    for (index, what) in [("needed", vec![s(&demo), "--with-deps"]), ("named", vec!["pypi:dep==2.0"])] {
        let index = dir.path().join(index);
        let mut command = mirror(&[&["add", "--index", s(&index), "--python", "3.11"][..], &what].concat());
        let url = format!("{}/simple", server.url);
        let ran = Ran::of(command.env("HOME", dir.path()).env("PIP_INDEX_URL", url), dir.path()).exits(0);
        assert_eq!(ran.stdout.matches("dep-2.0").count(), 1, "{}", ran.stdout);
        ran.says("dep-2.0-10-py3-none-any.whl: published");
    }
}

#[test]
fn what_does_not_run_on_the_python_that_is_named_meets_no_need() {
    let dir = tempfile::tempdir().unwrap();
    let (w, public, index) = (dir.path().join("w"), dir.path().join("public"), dir.path().join("index"));
    // By Python's patch releases, of which the last counts.
    let old = build_wheel(&w, "leaf", "1.0", "Requires-Python: !=3.11.0,>=3.11.2\n", |_| {});
    let new = build_wheel(&w, "leaf", "2.0", "Requires-Python: >=3.12\n", |_| {});
    run(dir.path(), &["add", "--index", s(&public), s(&old), s(&new)]).exits(0);
    let server = Server::start(&public, &["--quiet"]);
    let demo = wheel(&w, "demo", "1.0", "Requires-Dist: leaf\n");
    // It is there already, beside what is at hand.
    run(dir.path(), &["add", "--index", s(&index), s(&new)]).exits(0);
    let add = |python: &str| {
        let mut command = mirror(&["add", "--index", s(&index), "--python", python, "--with-deps", s(&demo), s(&new)]);
        let url = format!("{}/simple", server.url);
        Ran::of(command.env("HOME", dir.path()).env("PIP_INDEX_URL", url), dir.path()).exits(0)
    };
    assert!(!add("3.12").stdout.contains("leaf-1.0"));
    add("3.11").says("leaf-1.0-py3-none-any.whl: published");
}

#[test]
fn what_does_not_run_where_its_asker_does_is_named_as_missing() {
    let dir = tempfile::tempdir().unwrap();
    let (w, index) = (dir.path().join("w"), dir.path().join("index"));
    let leaf = build_wheel(&w, "leaf", "1.0", "Requires-Python: >=3.12\n", |_| {});
    let demo = wheel(&w, "demo", "1.0", "Requires-Dist: leaf\n");
    let add = |tag: &str| {
        let tagged = w.join(format!("demo-1.0-{tag}.whl"));
        std::fs::copy(&demo, &tagged).unwrap();
        run(dir.path(), &["add", "--index", s(&index), s(&leaf), s(&tagged)]).exits(0)
    };
    add("cp311-none-any").says("demo-1.0-cp311-none-any.whl needs leaf, which this index does not have");
    // What is for many Pythons runs on one at least.
    for tag in ["cp312-none-any", "cp39-abi3-any", "py2.py3-none-any"] {
        let ran = add(tag);
        assert!(!ran.stdout.contains("does not have"), "{tag}: {}", ran.stdout);
    }
}

#[test]
fn a_yank_without_a_reason_is_one_for_every_installer() {
    let dir = tempfile::tempdir().unwrap();
    let (index, w) = (dir.path().join("index"), wheel(&dir.path().join("w"), "demo", "1.0", ""));
    run(dir.path(), &["add", "--index", s(&index), s(&w)]).exits(0);
    let path = index.join("simple/demo/index.json");
    let yanked = || {
        let page: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        page["files"][0]["yanked"].clone()
    };
    // Of an empty text pip makes that it is not yanked (PEP 691 has none).
    for reason in [vec![], vec!["--reason", ""]] {
        run(dir.path(), &[&["yank", "--index", s(&index), "demo-1.0-py3-none-any.whl"][..], &reason].concat()).exits(0);
        assert_eq!(yanked(), true);
        let listed = run(dir.path(), &["list", "--index", s(&index), "--json"]).exits(0);
        let json: Value = serde_json::from_str(&listed.stdout).unwrap();
        assert_eq!(json["files"][0]["yanked"], true);
    }
    // A page that has one is found, and put right with the next change.
    let right = std::fs::read_to_string(&path).unwrap();
    let wrong = right.replacen("\"yanked\":true", "\"yanked\":\"\"", 1);
    assert_ne!(wrong, right);
    std::fs::write(&path, wrong).unwrap();
    run(dir.path(), &["check", "--index", s(&index)]).exits(1).says("its 'yanked' is not what is made of its files");
    run(dir.path(), &["add", "--index", s(&index), s(&w)]).exits(0).says("already there");
    assert_eq!(yanked(), true);
    run(dir.path(), &["check", "--index", s(&index)]).exits(0);
}

#[test]
fn of_two_files_of_one_name_none_is_left_out_unseen() {
    let dir = tempfile::tempdir().unwrap();
    let (index, public) = (dir.path().join("index"), dir.path().join("public"));
    let one = wheel(&dir.path().join("a"), "demo", "1.0", "");
    let other = wheel(&dir.path().join("b"), "demo", "1.0", "Summary: other bytes\n");
    run(dir.path(), &["add", "--index", s(&public), s(&other)]).exits(0);
    let server = Server::start(&public, &["--quiet"]);
    let add = |what: &[&str]| {
        let mut command = mirror(&[&["add", "--index", s(&index), "--python", "3.11"][..], what].concat());
        Ran::of(command.env("HOME", dir.path()).env("PIP_INDEX_URL", format!("{}/simple", server.url)), dir.path())
    };
    for what in [&["--with-deps", s(&one), s(&other)][..], &[s(&one), "pypi:demo==1.0"]] {
        add(what).exits(2).says("'demo-1.0-py3-none-any.whl' is meant twice, with the SHA-256");
        assert!(!index.exists());
    }
    add(&["--with-deps", s(&other), s(&other), "pypi:demo==1.0"]).exits(0);
    run(dir.path(), &["check", "--index", s(&index)]).exits(0).says("1 files, 0 of 0");
}

#[test]
fn what_was_yanked_or_removed_here_does_not_come_back_for_being_needed() {
    let dir = tempfile::tempdir().unwrap();
    let (w, public, index) = (dir.path().join("w"), dir.path().join("public"), dir.path().join("index"));
    for version in ["1.0", "2.0", "3.0"] {
        wheel(&w, "leaf", version, "");
    }
    run(dir.path(), &["add", "--index", s(&public), s(&w)]).exits(0);
    let server = Server::start(&public, &["--quiet"]);
    let file = |version: &str| format!("leaf-{version}-py3-none-any.whl");
    let yank = |version: &str| run(dir.path(), &["yank", "--index", s(&index), &file(version)]).exits(0);
    let remove = |version: &str| {
        run(dir.path(), &["remove", "--index", s(&index), &file(version), "--reason", "a hole in it"]).exits(0)
    };
    run(dir.path(), &["add", "--index", s(&index), s(&w.join(file("2.0"))), s(&w.join(file("3.0")))]).exits(0);
    yank("3.0");
    remove("2.0");
    let demo = wheel(&dir.path().join("d"), "demo", "1.0", "Requires-Dist: leaf\n");
    let add = || {
        let mut command = mirror(&["add", "--index", s(&index), "--python", "3.11", "--with-deps", s(&demo)]);
        Ran::of(command.env("HOME", dir.path()).env("PIP_INDEX_URL", format!("{}/simple", server.url)), dir.path())
    };
    let ran = add().exits(0).says("leaf-1.0-py3-none-any.whl: published");
    assert!(!ran.stdout.contains("leaf-2.0") && !ran.stdout.contains("leaf-3.0"), "{}", ran.stdout);
    // Where there is no other, what was removed comes back, and is said to.
    remove("1.0");
    add()
        .exits(0)
        .says("leaf-2.0-py3-none-any.whl: published")
        .says("'leaf-2.0-py3-none-any.whl' comes back: it was removed at")
        .says("(a hole in it)");
    // What is yanked would stay so.
    yank("2.0");
    add().exits(0).says("leaf-1.0-py3-none-any.whl: published");
    yank("1.0");
    add().exits(2).says("has no wheel for 'leaf' that fits CPython 3.11 and is not yanked in this index");
}

#[test]
fn what_comes_to_lie_beside_a_published_wheel_is_not_left_out_unseen() {
    let dir = tempfile::tempdir().unwrap();
    let (index, w) = (dir.path().join("index"), wheel(&dir.path().join("w"), "demo", "1.0", ""));
    let add = || run(dir.path(), &["add", "--index", s(&index), s(&w)]).exits(0);
    add();
    std::fs::write(w.with_extension("manifest.json"), "{}").unwrap();
    add().says("already there").says("'demo-1.0-py3-none-any.manifest.json' is not published");
    run(dir.path(), &["remove", "--index", s(&index), "demo-1.0-py3-none-any.whl", "--reason", "alone"]).exits(0);
    add().says("published");
    let ran = add();
    assert!(!ran.stderr.contains("is not published"), "{}", ran.stderr);
}

#[test]
fn what_extras_need_is_named_and_comes_along() {
    let dir = tempfile::tempdir().unwrap();
    let (w, public) = (dir.path().join("w"), dir.path().join("public"));
    // Their names compare normalized (PEP 685), and one extra may ask for another.
    let extras = "Provides-Extra: fast-er\nProvides-Extra: all\nProvides-Extra: slow\n\
                  Requires-Dist: speed>=2; extra == 'Fast.er'\nRequires-Dist: lib[fast_er]; extra == 'all'\n\
                  Requires-Dist: snail; extra == 'slow'\n\
                  Requires-Dist: only_there; extra == 'fast-er' and sys_platform == 'win32'\n";
    let lib = wheel(&w, "lib", "1.0", extras);
    let wheels = [
        lib.clone(),
        wheel(&w, "speed", "1.0", ""),
        wheel(&w, "speed", "2.0", "Requires-Dist: leaf\n"),
        wheel(&w, "leaf", "1.0", ""),
    ];
    let paths: Vec<&str> = wheels.iter().map(|p| s(p)).collect();
    run(dir.path(), &[&["add", "--index", s(&public)][..], &paths].concat()).exits(0);
    let server = Server::start(&public, &["--quiet"]);
    let app = wheel(&w, "app", "1.0", "Requires-Dist: lib[FAST-er]==1.0\n");
    let whole = wheel(&w, "whole", "1.0", "Requires-Dist: lib[all]\n");
    let add = |index: &str, more: &[&str]| {
        let index = dir.path().join(index);
        let mut command = mirror(&[&["add", "--index", s(&index), "--python", "3.11"][..], more].concat());
        command.env("HOME", dir.path()).env("PIP_INDEX_URL", format!("{}/simple", server.url));
        Ran::of(&mut command, dir.path()).exits(0)
    };
    let is_whole = |ran: Ran| {
        assert!(!ran.stdout.contains("does not have"), "{}", ran.stdout);
        ran.says("speed-2.0-py3-none-any.whl: published").says("leaf-1.0-py3-none-any.whl: published");
    };
    let named = "lib-1.0-py3-none-any.whl[fast-er] needs speed>=2, which this index does not have";
    // Of wheels that come together.
    add("named", &[s(&app), s(&lib)]).says(named);
    let ran = run(dir.path(), &["check", "--index", s(&dir.path().join("named")), "--json"]).exits(0);
    let json: Value = serde_json::from_str(&ran.stdout).unwrap();
    let missing = json["missing"].as_array().unwrap();
    assert_eq!(missing.len(), 1, "{json}");
    assert_eq!(missing[0]["project"], "speed", "{json}");
    assert_eq!(missing[0]["extra"], "fast-er", "{json}");
    is_whole(add("together", &[s(&app), s(&lib), "--with-deps"]));
    // Of what the index has, whose extras nobody asked for until now.
    let ran = add("there", &[s(&lib)]);
    assert!(!ran.stdout.contains("does not have"), "{}", ran.stdout);
    add("there", &[s(&whole)]).says(named);
    is_whole(add("there", &[s(&whole), "--with-deps"]));
    // Of what is asked for by name, alone and in a requirements file.
    add("by-name", &["pypi:lib[all]==1.0"]).says(named);
    is_whole(add("by-name", &["pypi:lib[all]==1.0", "--with-deps"]));
    let requirements = w.join("requirements.txt");
    let digest = sha256(&std::fs::read(&lib).unwrap());
    std::fs::write(&requirements, format!("lib[Fast.Er]==1.0 --hash=sha256:{digest}\n")).unwrap();
    add("of-a-file", &[s(&requirements)]).says(named);
    is_whole(add("of-a-file", &[s(&requirements), "--with-deps"]));
}

#[test]
fn a_server_that_fails_is_tried_again_and_one_that_refuses_is_not() {
    use crate::support::{Answer, Server as Fake};
    let dir = tempfile::tempdir().unwrap();
    let w = wheel(&dir.path().join("w"), "demo", "1.0", "");
    for (status, times, says) in
        [(403u16, 1usize, "may not upload"), (413, 1, "takes no file of this size"), (500, 4, "could not be uploaded")]
    {
        let server = Fake::start([("/up/", Answer::Status(status))]);
        run(dir.path(), &["push", "--to", &format!("{}/up/", server.url), s(&w)]).exits(3).says(says);
        assert_eq!(server.ranges("/up/").len(), times, "{status}");
    }
    // One that cuts in the middle is tried again, and the message says how to go on.
    let server = Fake::start([("/up/", Answer::HangUp)]);
    let ran = run(dir.path(), &["push", "--to", &format!("{}/up/", server.url), s(&w)]).exits(3);
    ran.says("the connection failed").says("goes on where it stopped");
    assert_eq!(server.ranges("/up/").len(), 4);
}

/// A wheel as torchmill makes it, with manifest, bill of materials and statement beside it, in the folder `dist`.
fn stated_wheel(dist: &Path) -> PathBuf {
    use crate::support::zips::{archive, deflated};
    let info = "demo-1.0.dist-info";
    let origin = [("recipes/r.lock", "x"), ("recipes/r.toml", "name = \"r\"\n")];
    let facts =
        r#"{"schema_version":1,"torchmill":"0.1.0","recipe":"r","python":"3.11","machine":"x86_64","toolchain":{}}"#;
    let mut files = vec![
        ("demo/__init__.py".to_owned(), "x = 1\n"),
        (format!("{info}/METADATA"), "Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n\n"),
        (format!("{info}/WHEEL"), "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"),
        (format!("{info}/torchmill/build.json"), facts),
    ];
    files.extend(origin.map(|(path, text)| (format!("{info}/torchmill/{path}"), text)));
    let digest = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(Sha256::digest(text));
    let lines = files.iter().map(|(name, text)| format!("{name},sha256={},{}\n", digest(text), text.len()));
    let record = lines.collect::<String>() + &format!("{info}/RECORD,,\n");
    let mut parts: Vec<_> = files.iter().map(|(name, text)| deflated(name, text.as_bytes())).collect();
    parts.push(deflated(&format!("{info}/RECORD"), record.as_bytes()));
    std::fs::create_dir_all(dist).unwrap();
    let wheel = dist.join("demo-1.0-py3-none-any.whl");
    std::fs::write(&wheel, archive(&parts, |_, _| {})).unwrap();
    std::fs::write(dist.join("demo-1.0-py3-none-any.manifest.json"), "{\"made\": \"so\"}").unwrap();
    std::fs::write(dist.join("demo-1.0-py3-none-any.cdx.json"), "{\"bom\": \"ours\"}").unwrap();
    let recipe: String = origin.iter().map(|(path, text)| format!("{}  {path}\n", sha256(text.as_bytes()))).collect();
    state(dist, &["whl", "manifest.json", "cdx.json"], &sha256(recipe.as_bytes()), "us");
    wheel
}

/// Writes the statement about the files of these endings in `dist`.
fn state(dist: &Path, endings: &[&str], recipe: &str, builder: &str) {
    let subject = |ending: &&str| {
        let name = format!("demo-1.0-py3-none-any.{ending}");
        let digest = sha256(&std::fs::read(dist.join(&name)).unwrap());
        serde_json::json!({ "name": name, "digest": { "sha256": digest } })
    };
    let statement = serde_json::json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": endings.iter().map(subject).collect::<Vec<_>>(),
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "externalParameters": { "recipe": { "name": "r", "sha256": recipe } },
                "internalParameters": { "toolchain": { "sha256": "0" } },
            },
            "runDetails": { "builder": { "id": builder } },
        },
    });
    std::fs::write(dist.join("demo-1.0-py3-none-any.provenance.json"), statement.to_string()).unwrap();
}

/// The statement of an envelope, or as it stands there, by another builder.
fn forged(text: &str, sig: Option<&str>) -> String {
    let standard = base64::engine::general_purpose::STANDARD;
    let mut value: Value = serde_json::from_str(text).unwrap();
    let Some(sig) = sig else {
        value["predicate"]["runDetails"]["builder"]["id"] = "EVIL".into();
        return value.to_string();
    };
    let payload = String::from_utf8(standard.decode(value["payload"].as_str().unwrap()).unwrap()).unwrap();
    value["payload"] = standard.encode(forged(&payload, None)).into();
    value["signatures"] = serde_json::json!([{ "keyid": "", "sig": sig }]);
    value.to_string()
}

#[test]
fn what_lies_beside_a_wheel_goes_out_as_the_statement_has_it_that_was_judged() {
    let dir = tempfile::tempdir().unwrap();
    let (index, key, public) = (dir.path().join("index"), dir.path().join("k.pem"), dir.path().join("k.pub"));
    succeeds(Command::new("openssl").args(["genpkey", "-algorithm", "ed25519", "-out", s(&key)]));
    succeeds(Command::new("openssl").args(["pkey", "-in", s(&key), "-pubout", "-out", s(&public)]));
    let torchmill = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_torchmill"));
        Ran::of(command.args(args).current_dir(root()).env("NO_COLOR", "1").env("HOME", dir.path()), dir.path())
    };
    let dist = dir.path().join("dist");
    let at = |ending: &str| dist.join(format!("demo-1.0-py3-none-any.{ending}"));
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    let wheel = stated_wheel(&dist);
    torchmill(&["sign", s(&at("provenance.json")), "--key", s(&key)]).exits(0);
    let published = |more: &[&str]| {
        let ran = torchmill(&[&["publish", "--index", s(&index), s(&dist)][..], more].concat());
        let there = index.join("files/demo").exists();
        assert_eq!(there, ran.code == Some(0), "{ran:?}");
        let _ = std::fs::remove_dir_all(&index);
        ran
    };
    let with_key = ["--key", s(&public)];
    published(&with_key).exits(0).says("as 'demo-1.0-py3-none-any.provenance.dsse.json' has them");
    // A report is made afterwards; that nobody signed it is said.
    std::fs::write(at("validate.html"), "<!doctype html>").unwrap();
    published(&with_key).exits(0).says("it says nothing of demo-1.0-py3-none-any.validate.html");

    // Manifest and bill of materials are those that the statement names, whichever way they come in.
    for ending in ["manifest.json", "cdx.json"] {
        let good = read(&at(ending));
        std::fs::write(at(ending), "{\"evil\": 1}").unwrap();
        let says = format!("'demo-1.0-py3-none-any.{ending}' has the SHA-256");
        published(&with_key).exits(2).says(&says);
        published(&[]).exits(2).says(&says);
        run(dir.path(), &["add", "--index", s(&index), s(&wheel)]).exits(2).says(&says);
        std::fs::write(at(ending), good).unwrap();
    }
    // The plain statement says what the signed one says.
    let (plain, signed) = (read(&at("provenance.json")), read(&at("provenance.dsse.json")));
    std::fs::write(at("provenance.json"), forged(&plain, None)).unwrap();
    published(&with_key).exits(2).says("'demo-1.0-py3-none-any.provenance.json' says something else than");
    std::fs::write(at("provenance.json"), &plain).unwrap();
    // One of other bytes is nobody's here.
    std::fs::write(at("provenance.json"), plain.replace(&sha256(&std::fs::read(&wheel).unwrap()), &sha256(b"other")))
        .unwrap();
    std::fs::remove_file(at("provenance.dsse.json")).unwrap();
    run(dir.path(), &["add", "--index", s(&index), s(&wheel)]).exits(2).says("is not about these bytes");
    std::fs::write(at("provenance.json"), &plain).unwrap();

    // A good statement under another name does not stand for what is called as the wheel is.
    let other = dist.join("a.provenance.dsse.json");
    std::fs::write(&other, &signed).unwrap();
    published(&with_key).exits(0).says("as 'a.provenance.dsse.json' has them");
    for ending in ["manifest.json", "cdx.json"] {
        let good = read(&at(ending));
        std::fs::remove_file(at("provenance.json")).unwrap();
        std::fs::write(at(ending), "{\"evil\": 1}").unwrap();
        published(&with_key).exits(1).says("(files beside it) may not go out");
        std::fs::write(at(ending), good).unwrap();
        std::fs::write(at("provenance.json"), forged(&plain, None)).unwrap();
        published(&with_key).exits(1).says("says something else than 'a.provenance.dsse.json'");
        std::fs::write(at("provenance.json"), &plain).unwrap();
    }
    std::fs::remove_file(at("provenance.json")).unwrap();
    let sig = base64::engine::general_purpose::STANDARD.encode([7; 64]);
    std::fs::write(at("provenance.dsse.json"), forged(&signed, Some(&sig))).unwrap();
    published(&with_key).exits(1).says("(signature) may not go out");
    // What could be no signature is none.
    std::fs::write(at("provenance.dsse.json"), forged(&signed, Some("AAAA"))).unwrap();
    published(&with_key).exits(2).says("nobody signed");
    std::fs::remove_file(&other).unwrap();
    torchmill(&["verify", s(&wheel)]).exits(0).says("not signed");

    // Under a key, what the signed statement does not speak of stays at home.
    let recipe: Value = serde_json::from_str(&plain).unwrap();
    let recipe = &recipe["predicate"]["buildDefinition"]["externalParameters"]["recipe"]["sha256"];
    state(&dist, &["whl", "cdx.json"], recipe.as_str().unwrap(), "us");
    torchmill(&["sign", s(&at("provenance.json")), "--key", s(&key)]).exits(0);
    published(&with_key).exits(1).says("says nothing of 'demo-1.0-py3-none-any.manifest.json'");
    published(&[]).exits(0).says("it says nothing of demo-1.0-py3-none-any.manifest.json");
}

#[test]
fn what_changes_after_it_was_judged_is_not_published() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use torchmill::event::Silent;
    use torchmill::mirror::{Index, Wheel, push};
    let dir = tempfile::tempdir().unwrap();
    let wheel = stated_wheel(&dir.path().join("dist"));
    let index = Index::open_or_create(&dir.path().join("index")).unwrap();
    for ending in ["manifest.json", "cdx.json", "provenance.json"] {
        let judged = Wheel::examine(&wheel).unwrap();
        let beside = wheel.with_extension(ending);
        let good = std::fs::read(&beside).unwrap();
        std::fs::write(&beside, "{}").unwrap();
        let refused = index.add(std::slice::from_ref(&judged), &Silent).unwrap_err();
        assert!(refused.what().ends_with(&format!("{ending} changed while it was published")), "{refused}");
        assert!(!index.files("demo").join("demo-1.0-py3-none-any.whl").exists());
        std::fs::write(&beside, good).unwrap();
        index.add(&[judged], &Silent).unwrap();
        index.remove(&["demo-1.0-py3-none-any.whl"], "again", &Silent).unwrap();
    }
    // The wheel itself: published, or sent, are the bytes that were looked at.
    let judged = Wheel::examine(&wheel).unwrap();
    judged.hold(std::slice::from_ref(&judged.sha256)).unwrap();
    let refused = judged.hold(&["0".repeat(64)]).unwrap_err();
    assert!(refused.what().contains("changed while it was looked at"), "{refused}");
    let mut other = std::fs::read(&wheel).unwrap();
    let middle = other.len() / 2;
    other[middle] ^= 1;
    std::fs::write(&wheel, other).unwrap();
    let refused = index.add(std::slice::from_ref(&judged), &Silent).unwrap_err();
    assert!(refused.what().ends_with(".whl changed while it was published"), "{refused}");
    assert!(!index.files("demo").join("demo-1.0-py3-none-any.whl").exists());
    let uploads = std::sync::Arc::new(AtomicUsize::new(0));
    let counted = std::sync::Arc::clone(&uploads);
    let (url, asked) = scripted("127.0.0.1:0", move |method, _| {
        counted.fetch_add(usize::from(method == "POST"), Ordering::SeqCst);
        ("404 None".into(), Vec::new())
    });
    let target = push::Target {
        url: push::address(&format!("{url}/")).unwrap(),
        index: None,
        credentials: None,
        events: &Silent,
        agent: torchmill::source::http_agent(),
    };
    let refused = target.push(&[judged]).unwrap_err();
    assert!(refused.what().contains(".whl changed while it was sent"), "{refused}");
    assert_eq!(uploads.load(Ordering::SeqCst), 0, "the form came to its end: {asked:?}");
}

#[test]
fn what_is_yanked_while_it_is_looked_at_is_not_promoted() {
    use torchmill::event::{Event, Silent, Sink};
    use torchmill::mirror::{Index, copy};
    /// Yanks another file as soon as it hears of one that is yanked.
    struct Yanks(Index);
    impl Sink for Yanks {
        fn take(&self, _: Event) {
            self.0.yank("a-1.0-py3-none-any.whl", None, &Silent).unwrap();
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    let wheels = ["a", "b"].map(|name| wheel(&dir.path().join("w"), name, "1.0", ""));
    run(dir.path(), &["add", "--index", s(&from), s(&wheels[0]), s(&wheels[1])]).exits(0);
    run(dir.path(), &["yank", "--index", s(&from), "b-1.0-py3-none-any.whl"]).exits(0);
    let (from, to) = (Index::open(&from).unwrap(), Index::open_or_create(&to).unwrap());
    let no = copy::copy(&from, &to, &[], &Yanks(from.clone())).unwrap().unwrap_err();
    assert!(format!("{no:?}").contains("'a-1.0-py3-none-any.whl' was yanked or removed while"), "{no:?}");
    assert_eq!(to.projects().unwrap(), [""; 0]);
}

#[test]
fn what_prune_removes_is_chosen_while_nobody_else_changes_the_index() {
    use torchmill::event::Silent;
    let dir = tempfile::tempdir().unwrap();
    let index = torchmill::mirror::Index::open_or_create(&dir.path().join("index")).unwrap();
    let mut asked = false;
    let choose = || {
        let lock = std::fs::File::open(index.root().join(".lock")).unwrap();
        assert!(lock.try_lock().is_err(), "somebody else could change it now");
        asked = true;
        Ok(Vec::<String>::new())
    };
    assert_eq!(index.remove_chosen(choose, "retention", &Silent).unwrap(), [""; 0]);
    assert!(asked);
}

#[test]
fn what_the_policy_of_the_environment_does_not_allow_is_not_published() {
    let dir = tempfile::tempdir().unwrap();
    let (index, dist) = (dir.path().join("index"), dir.path().join("dist"));
    let wheel = stated_wheel(&dist);
    let policy = dir.path().join("policy.toml");
    std::fs::write(&policy, "schema = 1\nkeys = []\n").unwrap();
    let torchmill = |args: &[&str], policy: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_torchmill"));
        command.args(args).current_dir(root()).env("NO_COLOR", "1").env("HOME", dir.path());
        Ran::of(command.env("TORCHMILL_POLICY", policy), dir.path())
    };
    let publish = ["publish", "--index", s(&index), s(&dist)];
    torchmill(&publish, s(&policy)).exits(1).says("signature").says("may not go out");
    torchmill(&["verify", s(&wheel)], s(&policy)).exits(1).says("does not pass: signature");
    torchmill(&publish, s(&dir.path().join("none.toml"))).exits(2).says("none.toml");
    assert!(!index.exists());
    torchmill(&publish, "").exits(0);
    torchmill(&["verify", s(&wheel)], "").exits(0);
}
