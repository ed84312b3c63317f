//! An index of 10,000 wheels: how long one more takes, how long a check takes, and how many requests a
//! second a thousand clients get, from `mirror serve`, from nginx (as docs/mirror.md configures it) and
//! from pypiserver, on the same files, in one run.
//!
//! ```text
//! cargo bench --bench mirror
//! ```
//!
//! Needs wrk; nginx and `pypi-server` are left out where they are not on PATH.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)] // a benchmark that cannot go on panics

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use sha2::{Digest, Sha256};

const PROJECTS: usize = 100;
const VERSIONS: usize = 100;
const CLIENTS: usize = 1000;
/// Clients at a time of a large wheel, of which a thousand would share what one machine can send.
const CLIENTS_OF_LARGE: usize = 50;
const LARGE: usize = 64 << 20;
const SECONDS: &str = "10s";
const ROUNDS: usize = 3;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A small wheel.
fn wheel(dir: &Path, name: &str, version: usize) -> PathBuf {
    wheel_with(dir, name, version, &[])
}

/// A wheel with these bytes in it, not packed.
fn wheel_with(dir: &Path, name: &str, version: usize, bytes: &[u8]) -> PathBuf {
    let info = format!("{name}-{version}.0.dist-info");
    let digest = |b: &[u8]| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(Sha256::digest(b));
    let mut files = vec![
        (format!("{name}/__init__.py"), format!("version = {version}\n").into_bytes()),
        (format!("{name}/data"), bytes.to_vec()),
        (
            format!("{info}/METADATA"),
            format!("Metadata-Version: 2.1\nName: {name}\nVersion: {version}.0\nRequires-Python: >=3.9\n").into_bytes(),
        ),
        (
            format!("{info}/WHEEL"),
            b"Wheel-Version: 1.0\nGenerator: bench\nRoot-Is-Purelib: true\nTag: py3-none-any\n".to_vec(),
        ),
    ];
    let record: String = files.iter().map(|(n, b)| format!("{n},sha256={},{}\n", digest(b), b.len())).collect();
    files.push((format!("{info}/RECORD"), format!("{record}{info}/RECORD,,\n").into_bytes()));
    let path = dir.join(format!("{name}-{version}.0-py3-none-any.whl"));
    let mut zip = zip::ZipWriter::new(std::fs::File::create(&path).unwrap());
    let packed = zip::write::SimpleFileOptions::default();
    let plain = packed.compression_method(zip::CompressionMethod::Stored);
    for (name, bytes) in &files {
        zip.start_file(name.as_str(), if bytes.len() < LARGE { packed } else { plain }).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap();
    path
}

fn mirror(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_torchmill"));
    command.arg("mirror").args(args).stdin(Stdio::null()).stdout(Stdio::null());
    command
}

fn seconds(command: &mut Command) -> f64 {
    let started = Instant::now();
    assert!(command.status().unwrap().success());
    started.elapsed().as_secs_f64()
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A server that ends with its value.
struct Server {
    child: Child,
    url: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        // nginx has workers below it, which end when it is asked to.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        std::thread::sleep(Duration::from_millis(300));
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ours(index: &Path) -> Server {
    let mut child = mirror(&["serve", "--index", index.to_str().unwrap(), "--port", "0", "--quiet"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut url = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
    Server { child, url: url.trim().to_owned() }
}

/// nginx with the configuration that docs/mirror.md shows.
fn nginx(index: &Path, dir: &Path) -> Option<Server> {
    let docs = std::fs::read_to_string(root().join("docs/mirror.md")).unwrap();
    let block = docs.split("```nginx\n").nth(1).unwrap().split("```").next().unwrap();
    let port = free_port();
    let block = block.replace("/srv/wheels", index.to_str().unwrap()).replacen(
        "server {",
        &format!("server {{ listen 127.0.0.1:{port} backlog=4096;"),
        1,
    );
    let config = format!(
        "daemon off;\npid {0}/nginx.pid;\nworker_processes auto;\nerror_log {0}/error.log;\n\
         events {{ worker_connections 4096; }}\nhttp {{ access_log off; sendfile on;\n{block}}}\n",
        dir.display()
    );
    let path = dir.join("nginx.conf");
    std::fs::write(&path, config).unwrap();
    let child = Command::new("nginx").arg("-p").arg(dir).arg("-c").arg(&path).stderr(Stdio::null()).spawn().ok()?;
    Some(Server { child, url: format!("http://127.0.0.1:{port}/") })
}

fn pypiserver(packages: &Path) -> Option<Server> {
    let port = free_port();
    let child = Command::new("pypi-server")
        .args(["run", "-p", &port.to_string(), "-i", "127.0.0.1", "--disable-fallback"])
        .arg(packages)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    Some(Server { child, url: format!("http://127.0.0.1:{port}/") })
}

fn wait_for(url: &str) {
    let address = url.trim_start_matches("http://").trim_end_matches('/');
    for _ in 0..300 {
        if std::net::TcpStream::connect(address).is_ok() {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("{url} does not answer");
}

/// Requests a second, and what went wrong, in wrk's words.
fn load(url: &str, clients: usize) -> (f64, String) {
    let out = Command::new("wrk")
        .args(["-t2", "-c", &clients.to_string(), "-d", SECONDS, "--timeout", "10s", url])
        .output()
        .expect("wrk is on PATH");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let line = |start: &str| text.lines().map(str::trim).find(|l| l.starts_with(start)).map(str::to_owned);
    let rate = line("Requests/sec:").and_then(|l| l.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0.0);
    let errors = [line("Socket errors:"), line("Non-2xx")].into_iter().flatten().collect::<Vec<_>>().join("; ");
    (rate, if errors.is_empty() { "none".into() } else { errors })
}

fn main() {
    let dir = tempfile::tempdir().unwrap();
    let packages = dir.path().join("packages");
    std::fs::create_dir_all(&packages).unwrap();
    let index = dir.path().join("index");
    let paths: Vec<PathBuf> = (0..PROJECTS)
        .flat_map(|p| (0..VERSIONS).map(move |v| (p, v)))
        .map(|(p, v)| wheel(&packages, &format!("project{p}"), v))
        .collect();
    let mut add = mirror(&["add", "--quiet", "--index", index.to_str().unwrap()]);
    let all = seconds(add.args(&paths));
    println!("| what | s |\n|---|---|\n| the first {} wheels, in one `add` | {all:.1} |", paths.len());
    let one = |n: usize| {
        let path = wheel(dir.path(), "project7", VERSIONS + n);
        seconds(mirror(&["add", "--quiet", "--index", index.to_str().unwrap()]).arg(path))
    };
    let mut times: Vec<f64> = (0..5).map(one).collect();
    times.sort_by(f64::total_cmp);
    println!("| one more, median of 5 | {:.3} |\n| one more, slowest | {:.3} |", times[2], times[4]);
    println!("| `check` of all | {:.2} |", seconds(&mut mirror(&["check", "--index", index.to_str().unwrap()])));
    let one_core = seconds(mirror(&["check", "--index", index.to_str().unwrap()]).env("RAYON_NUM_THREADS", "1"));
    println!("| `check` of all, on one core | {one_core:.2} |");

    let large = wheel_with(&packages, "large", 1, &vec![b'x'; LARGE]);
    assert!(mirror(&["add", "--quiet", "--index", index.to_str().unwrap()]).arg(&large).status().unwrap().success());

    println!("\n{SECONDS} a cell, best of {ROUNDS} rounds in turns:\n");
    println!("| request | clients | server | requests/s | ratio to nginx | errors |\n|---|---|---|---|---|---|");
    let requests = [
        ("page of a project (100 files)", CLIENTS, "simple/project3/"),
        ("a wheel", CLIENTS, "files/project3/project3-50.0-py3-none-any.whl"),
        ("a wheel of 64 MiB", CLIENTS_OF_LARGE, "files/large/large-1.0-py3-none-any.whl"),
    ];
    for (what, clients, path) in requests {
        let mut rows: Vec<(&str, f64, String)> = Vec::new();
        for _ in 0..ROUNDS {
            let servers = [
                ("nginx", nginx(&index, dir.path()), path.to_owned()),
                ("mirror serve", Some(ours(&index)), path.to_owned()),
                (
                    "pypiserver",
                    pypiserver(&packages),
                    path.replace("files/project3/", "packages/").replace("files/large/", "packages/"),
                ),
            ];
            for (name, server, path) in servers {
                let Some(server) = server else { continue };
                wait_for(&server.url);
                let (rate, errors) = load(&format!("{}{path}", server.url), clients);
                match rows.iter_mut().find(|r| r.0 == name) {
                    Some(row) if row.1 >= rate => {}
                    Some(row) => *row = (name, rate, errors),
                    None => rows.push((name, rate, errors)),
                }
            }
        }
        let nginx = rows.iter().find(|r| r.0 == "nginx").map(|r| r.1);
        for (name, rate, errors) in &rows {
            let ratio = nginx.map_or("-".into(), |n| format!("{:.2}", rate / n));
            println!("| {what} | {clients} | {name} | {rate:.0} | {ratio} | {errors} |");
        }
    }
}
