//! What the integration tests share: a workspace of their own, a stand-in for PyTorch made by code,
//! and a server that misbehaves on request.

pub mod browser;
pub mod farm;
pub mod figures;
pub mod standin;
pub mod zips;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sha2::{Digest, Sha256};
use xshell::{Shell, cmd};

/// The repository's root.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A store that all tests share, for downloads and what is made of them.
pub fn shared_store() -> PathBuf {
    root().join("target/test-store")
}

pub fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// A folder with `recipes/` and `patches/` of its own.
pub struct Workspace {
    pub dir: tempfile::TempDir,
    pub store: PathBuf,
}

impl Workspace {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("recipes")).unwrap();
        std::fs::create_dir_all(dir.path().join("patches/cmake")).unwrap();
        for module in ["torchmill.cmake", "unity.cmake"] {
            let of = |top: &Path| top.join("patches/cmake").join(module);
            std::fs::copy(of(&root()), of(dir.path())).unwrap();
        }
        let store = dir.path().join("store");
        Self { dir, store }
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    /// `cargo xtask …` in this workspace.
    pub fn xtask(&self, args: &[&str]) -> std::process::Command {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_torchmill"));
        command.args(args).current_dir(self.path()).env("TORCHMILL_STORE", &self.store).env("NO_COLOR", "1");
        command
    }

    pub fn run(&self, args: &[&str]) -> Ran {
        Ran::of(&mut self.xtask(args), self.path())
    }
}

/// How a command ended.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    pub fn of(command: &mut std::process::Command, hide: &Path) -> Self {
        let out = command.output().unwrap();
        let clean = |b: &[u8]| String::from_utf8_lossy(b).replace(&hide.display().to_string(), "[DIR]");
        Self { code: out.status.code(), stdout: clean(&out.stdout), stderr: clean(&out.stderr) }
    }

    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    #[track_caller]
    pub fn says(self, what: &str) -> Self {
        assert!(
            self.stderr.contains(what) || self.stdout.contains(what),
            "no '{what}' in\nstdout:\n{}\nstderr:\n{}",
            self.stdout,
            self.stderr
        );
        self
    }
}

/// A recipe that is complete, with the text after it appended.
pub fn recipe(more: &str) -> String {
    format!(
        r#"schema = 1
[torch]
version = "2.6.0"
commit = "0123456789012345678901234567890123456789"
local = "test"
epoch = 1738108800
[python]
requires = ">=3.9,<3.15"
versions = []
[features]
USE_DISTRIBUTED = true
[libuv]
version = "1.50.0"
source = "libuv"
[[source]]
name = "libuv"
coordinates = ["file:uv.tar"]
into = []
license = "MIT"
{more}"#
    )
}

/// Packs `files` as a tar archive with the top folder `top`.
pub fn tar(top: &str, files: &BTreeMap<String, String>) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(1);
        tar.append_data(&mut header, format!("{top}/{name}"), text.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap()
}

/// What the server does with a request for a path.
#[derive(Clone)]
pub enum Answer {
    /// Sends the bytes, ranges allowed.
    Ok(Vec<u8>),
    /// Sends the bytes, whatever range is asked for.
    NoRanges(Vec<u8>),
    /// Sends this many bytes of each answer, then cuts the connection; ranges allowed.
    CutAfter(Vec<u8>, usize),
    /// Cuts once after that many bytes, and answers every request from the beginning (no ranges).
    CutOnceNoRanges(Vec<u8>, usize),
    /// Announces more bytes than it has.
    LongLie(Vec<u8>, usize),
    /// Cuts once after that many bytes, and announces the rest as more than any number of bytes that can be added to.
    PartLie(Vec<u8>, usize),
    /// Sends more bytes than the lock says, without announcing a length.
    Endless,
    /// Sends a beginning and then nothing.
    Stall(Vec<u8>),
    /// Sends a byte now and then, for as long as anybody listens, and says that it is a page. To git, the first four of
    /// them are the length of what is to come.
    Drip,
    /// This status the first n times, then the bytes.
    FailFirst(u16, usize, Vec<u8>),
    /// This status.
    Status(u16),
    /// Closes the connection after a few bytes of the request's body, without a word.
    HangUp,
    /// Bytes of this type.
    Typed(&'static str, Vec<u8>),
    /// Sends whoever asks on to this address.
    Moved(&'static str),
}

/// Path and `Range` header of each request.
pub type Requests = Arc<Mutex<Vec<(String, Option<String>)>>>;

/// A server on loopback. It counts requests and remembers the `Range` headers.
pub struct Server {
    pub url: String,
    pub requests: Requests,
}

impl Server {
    pub fn start(answers: impl IntoIterator<Item = (&'static str, Answer)>) -> Self {
        let answers: BTreeMap<String, Answer> = answers.into_iter().map(|(p, a)| (p.to_owned(), a)).collect();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&requests);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answers, log) = (answers.clone(), Arc::clone(&log));
                std::thread::spawn(move || {
                    let _ = serve(stream, &answers, &log);
                });
            }
        });
        Self { url, requests }
    }

    pub fn ranges(&self, path: &str) -> Vec<Option<String>> {
        self.requests.lock().unwrap().iter().filter(|(p, _)| p == path).map(|(_, r)| r.clone()).collect()
    }
}

/// The bytes that a `Range` header asks for: `bytes=5-`, `bytes=5-9`, `bytes=-5`.
pub fn wanted(range: &str, size: usize) -> Option<(usize, usize)> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let (start, end) = match (first.parse::<usize>(), last.parse::<usize>()) {
        (Ok(start), Ok(last)) => (start, (last + 1).min(size)),
        (Ok(start), Err(_)) => (start, size),
        (Err(_), Ok(suffix)) => (size.saturating_sub(suffix), size),
        _ => return None,
    };
    (start < end).then_some((start, end))
}

fn serve(
    stream: TcpStream,
    answers: &BTreeMap<String, Answer>,
    log: &Mutex<Vec<(String, Option<String>)>>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut out = stream;
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let path = line.split(' ').nth(1).unwrap_or("/").to_owned();
    let mut range = None;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        if header.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = header.split_once(':')
            && name.eq_ignore_ascii_case("range")
        {
            range = Some(value.trim().to_owned());
        }
    }
    let earlier = {
        let mut log = log.lock().unwrap();
        log.push((path.clone(), range.clone()));
        log.iter().filter(|(p, _)| *p == path).count() - 1
    };
    if let Some(Answer::HangUp) = answers.get(&path) {
        let mut some = [0u8; 64];
        let _ = reader.read(&mut some);
        return Ok(());
    }
    let head = |out: &mut TcpStream, status: &str, more: &str| {
        write!(out, "HTTP/1.1 {status}\r\nConnection: close\r\n{more}\r\n")
    };
    let ranged = |out: &mut TcpStream, bytes: &[u8], send: usize| -> std::io::Result<()> {
        if let Some((start, end)) = range.as_deref().and_then(|r| wanted(r, bytes.len())) {
            let size = bytes.len();
            let more =
                format!("Content-Length: {}\r\nContent-Range: bytes {start}-{}/{size}\r\n", end - start, end - 1);
            head(out, "206 Partial Content", &more)?;
            out.write_all(&bytes[start..start.saturating_add(send).min(end)])
        } else {
            head(out, "200 OK", &format!("Content-Length: {}\r\n", bytes.len()))?;
            out.write_all(&bytes[..send.min(bytes.len())])
        }
    };
    match answers.get(&path) {
        None | Some(Answer::HangUp) => head(&mut out, "404 Not Found", "Content-Length: 0\r\n"),
        Some(Answer::Ok(bytes)) => ranged(&mut out, bytes, usize::MAX / 2),
        Some(Answer::NoRanges(bytes)) => {
            head(&mut out, "200 OK", &format!("Content-Length: {}\r\n", bytes.len()))?;
            out.write_all(bytes)
        }
        Some(Answer::CutAfter(bytes, n)) => ranged(&mut out, bytes, *n),
        Some(Answer::CutOnceNoRanges(bytes, n)) => {
            head(&mut out, "200 OK", &format!("Content-Length: {}\r\n", bytes.len()))?;
            out.write_all(if earlier == 0 { &bytes[..*n] } else { bytes })
        }
        Some(Answer::LongLie(bytes, announced)) => {
            head(&mut out, "200 OK", &format!("Content-Length: {announced}\r\n"))?;
            out.write_all(bytes)
        }
        Some(Answer::PartLie(bytes, n)) => match range.as_deref().and_then(|r| wanted(r, bytes.len())) {
            None => ranged(&mut out, bytes, *n),
            Some((start, end)) => {
                let part = format!("Content-Range: bytes {start}-{}/{}\r\n", end - 1, bytes.len());
                head(&mut out, "206 Partial Content", &format!("Content-Length: {}\r\n{part}", u64::MAX))?;
                out.write_all(&bytes[start..end])
            }
        },
        Some(Answer::Endless) => {
            head(&mut out, "200 OK", "")?;
            for _ in 0..100_000 {
                out.write_all(&[b'x'; 4096])?;
            }
            Ok(())
        }
        Some(Answer::Stall(bytes)) => {
            head(&mut out, "200 OK", "Content-Length: 1000000\r\n")?;
            out.write_all(bytes)?;
            std::thread::sleep(Duration::from_secs(30));
            Ok(())
        }
        Some(Answer::Drip) => {
            head(&mut out, "200 OK", "Content-Type: text/html\r\nContent-Length: 1000000\r\n")?;
            (0..600).try_for_each(|_| {
                std::thread::sleep(Duration::from_millis(200));
                out.write_all(b"f")
            })
        }
        Some(Answer::FailFirst(status, n, bytes)) => {
            if earlier < *n {
                head(&mut out, &format!("{status} No"), "Content-Length: 0\r\n")
            } else {
                ranged(&mut out, bytes, usize::MAX / 2)
            }
        }
        Some(Answer::Status(status)) => head(&mut out, &format!("{status} No"), "Content-Length: 0\r\n"),
        Some(Answer::Typed(kind, bytes)) => {
            head(&mut out, "200 OK", &format!("Content-Type: {kind}\r\nContent-Length: {}\r\n", bytes.len()))?;
            out.write_all(bytes)
        }
        Some(Answer::Moved(to)) => head(&mut out, "302 Found", &format!("Location: {to}\r\nContent-Length: 0\r\n")),
    }?;
    out.flush()?;
    let _ = out.shutdown(std::net::Shutdown::Write);
    let mut rest = [0u8; 4096];
    let _ = out.set_read_timeout(Some(Duration::from_millis(200)));
    // What the client still sends is taken: closed on it, it might not hear the answer.
    while out.read(&mut rest).is_ok_and(|n| n > 0) {}
    Ok(())
}

/// Mach-O images for several machines in one file, each with its CPU type.
pub fn fat(images: &[(u32, Vec<u8>)]) -> Vec<u8> {
    let mut out = [0xcafe_babe_u32, images.len() as u32].iter().flat_map(|v| v.to_be_bytes()).collect::<Vec<u8>>();
    let mut at = 4096;
    for (cpu, image) in images {
        let fields = [*cpu, 0, at as u32, image.len() as u32, 12];
        out.extend(fields.iter().flat_map(|v| v.to_be_bytes()));
        at += image.len().next_multiple_of(4096);
    }
    for (_, image) in images {
        out.resize(out.len().next_multiple_of(4096), 0);
        out.extend(image);
    }
    out
}

/// Waits for whoever has the file at `path` locked, a test of another copy of this program as well, and keeps others from
/// it until what comes back goes.
pub fn locked(path: &Path) -> std::fs::File {
    let file = std::fs::File::options().read(true).write(true).create(true).truncate(false).open(path).unwrap();
    file.lock().unwrap();
    file
}

/// The same for what is made once, below `target/` and under this name.
pub fn alone_with(name: &str) -> std::fs::File {
    locked(&root().join("target").join(format!("{name}.lock")))
}

/// A folder below `target/` with `packages`, made once: by `make`, which gets a path where nothing is, and by `install`,
/// which is tried three times and says why it did not. Tests that ask at one time wait for each other.
fn made_once(
    name: &str,
    packages: &[&str],
    make: impl Fn(&Shell, &Path),
    install: impl Fn(&Shell, &Path) -> Result<(), String>,
) -> PathBuf {
    let _one = alone_with(name);
    let dir = root().join("target").join(name);
    let done = dir.join("complete");
    if std::fs::read_to_string(&done).is_ok_and(|list| list == packages.join(" ")) {
        return dir;
    }
    let sh = Shell::new().unwrap();
    sh.remove_path(&dir).unwrap();
    make(&sh, &dir);
    let mut said = String::new();
    for _ in 0..3 {
        match install(&sh, &dir) {
            Ok(()) => {
                sh.write_file(done, packages.join(" ")).unwrap();
                return dir;
            }
            Err(why) => said = why,
        }
    }
    panic!("{} cannot be installed here: {said}", packages.join(", "))
}

/// What a command that installs something said, if it failed.
fn installed(install: xshell::Cmd<'_>) -> Result<(), String> {
    let out = install.quiet().ignore_status().output().unwrap();
    if out.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&out.stderr).into_owned()) }
}

/// A Python environment with `packages`.
pub fn python_environment(name: &str, packages: &[&str]) -> PathBuf {
    made_once(
        name,
        packages,
        |sh, env| cmd!(sh, "python3 -m venv {env}").quiet().run().unwrap(),
        |sh, env| {
            let python = env.join("bin/python");
            installed(cmd!(sh, "{python} -m pip install --quiet --disable-pip-version-check {packages...}"))
        },
    )
}

/// A folder with these Node packages.
pub fn node_packages(name: &str, packages: &[&str]) -> PathBuf {
    made_once(
        name,
        packages,
        |sh, dir| drop(sh.create_dir(dir).unwrap()),
        |sh, dir| installed(cmd!(sh, "npm install --silent --no-audit --no-fund --prefix {dir} {packages...}")),
    )
}

/// A small file system in memory, gone with this value.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounted at `at`, which is made.
    pub fn mount(at: &Path, size: &str) -> Self {
        let sh = Shell::new().unwrap();
        sh.create_dir(at).unwrap();
        cmd!(sh, "mount -t tmpfs -o size={size} tmpfs {at}").quiet().run().expect("the right to mount a file system");
        Self(at.to_owned())
    }

    pub fn grow(&self, size: &str) {
        let (sh, at) = (Shell::new().unwrap(), &self.0);
        cmd!(sh, "mount -o remount,size={size} {at}").quiet().run().unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let at = &self.0;
        if let Ok(sh) = Shell::new() {
            let _ = cmd!(sh, "umount -l {at}").quiet().run();
        }
    }
}
