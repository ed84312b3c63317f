//! uvstore: the package as pip installs it, with the program that this test builds, under a torch that this file
//! makes up; and, on request, under real ones.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::support::{Ran, locked, root, shared_store};

fn uvstore(args: &[&str]) -> serde_json::Value {
    let out = tempfile::tempdir().unwrap().keep();
    let mut build = Command::new(env!("CARGO_BIN_EXE_torchmill"));
    build.args(["uvstore", "--json", "--out"]).arg(out).args(args).current_dir(root());
    let ran = Ran::of(build.env("TORCHMILL_STORE", shared_store()), Path::new("/nowhere")).exits(0);
    serde_json::from_str(&ran.stdout).unwrap()
}

/// The wheel and the program in it, made once for all tests.
fn made() -> &'static (PathBuf, PathBuf) {
    static MADE: OnceLock<(PathBuf, PathBuf)> = OnceLock::new();
    MADE.get_or_init(|| {
        let json = uvstore(&["--wheel"]);
        assert_eq!(json["check"]["ok"], true);
        let path = |name: &str| PathBuf::from(json[name].as_str().unwrap());
        (path("wheel"), path("program"))
    })
}

/// A Python environment where the wheel is installed, and a torch without libuv on its path.
struct Env {
    dir: tempfile::TempDir,
}

impl Env {
    fn new() -> Self {
        let env = Self { dir: tempfile::tempdir().unwrap() };
        let run = |program: &Path, args: &[&str]| {
            let out = Command::new(program).args(args).current_dir(env.dir.path()).output().unwrap();
            assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
        };
        run(Path::new("python3"), &["-m", "venv", "v"]);
        let wheel = made().0.to_str().unwrap();
        run(&env.python(), &["-m", "pip", "install", "--quiet", "--no-index", "--no-deps", wheel]);
        run(&env.python(), &[root().join("tests/scenarios/torch_without_libuv.py").to_str().unwrap(), "site"]);
        env
    }

    fn python(&self) -> PathBuf {
        self.dir.path().join("v/bin/python")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.python());
        command.args(["-c", &format!("from torch.distributed import TCPStore\nfrom uvstore import hook\n{program}")]);
        command.env("PYTHONPATH", self.dir.path().join("site")).env("UVSTORE_LOG", "stderr");
        command
    }

    /// What a program says that has `TCPStore` and `hook`.
    fn run(&self, program: &str, vars: &[(&str, &str)]) -> Ran {
        Ran::of(self.command(program).envs(vars.iter().copied()), Path::new("/nowhere"))
    }

    /// A program that goes on until it is killed, its first line, and what is left to be read of it.
    fn start(&self, program: &str) -> (Child, String) {
        let mut child =
            self.command(&format!("{program}\nimport time; time.sleep(600)")).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        (child, line.trim().to_owned())
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn becomes_free(port: u16) {
    let started = Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
        assert!(started.elapsed() < Duration::from_secs(10), "port {port} stays taken");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_store_that_asks_for_libuv_is_served_and_all_ranks_meet_there() {
    let env = Env::new();
    // Port 0 is any, and the store says which one; by name and by place.
    env.run("s = TCPStore('localhost', 0, is_master=True); print(s.port > 0, s.is_master, s.add('k', 2))", &[])
        .exits(0)
        .says("True False 2")
        .says("serving localhost:");
    // The master waits for all, as torch's does.
    let port = free_port();
    let (mut master, _) = env.start(&format!(
        "import threading, time\nthreading.Timer(1, lambda: TCPStore('127.0.0.1', {port}, 2, False)).start()\n\
         t = time.monotonic(); s = TCPStore('127.0.0.1', {port}, 2, True); print(time.monotonic() - t > 0.9, flush=True)"
    ));
    let worker = env.run(&format!("print(TCPStore('127.0.0.1', {port}, 2, False).add('k', 1))"), &[]).exits(0);
    worker.says(&format!("a client of 127.0.0.1:{port}"));
    master.kill().unwrap();
    master.wait().unwrap();
    becomes_free(port);
    // A rank without the hook is a client like the others.
    let (mut master, _) = env
        .start(&format!("s = TCPStore('127.0.0.1', {port}, 2, True, wait_for_workers=False); print('up', flush=True)"));
    let client = format!("print('joined', TCPStore('127.0.0.1', {port}, 2, False, use_libuv=False).add('k', 1))");
    env.run(&client, &[("UVSTORE", "0")]).exits(0).says("joined 1");
    env.run(&format!("print('joined', TCPStore('127.0.0.1', {port}, 2, False).add('k', 1))"), &[])
        .exits(0)
        .says("joined 2");
    master.kill().unwrap();
    master.wait().unwrap();
    // And no longer than it was told.
    env.run("from datetime import timedelta\nTCPStore('127.0.0.1', 0, 3, True, timeout=timedelta(seconds=1))", &[])
        .exits(1)
        .says("DistStoreError: Timed out after 1 seconds waiting for clients. 1/3 clients joined.");
    // Who asks for the legacy store gets it.
    let own = env.run("print(TCPStore('localhost', 0, is_master=True, use_libuv=False).is_master)", &[]).exits(0);
    assert_eq!(own.stdout.trim(), "True");
}

#[test]
fn the_server_ends_with_the_store_and_with_its_process_however_that_ends() {
    let env = Env::new();
    let serve = |port| format!("s = TCPStore('127.0.0.1', {port}, is_master=True); print('up', flush=True)");
    // Killed.
    let port = free_port();
    let (mut child, line) = env.start(&serve(port));
    assert_eq!(line, "up");
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    child.kill().unwrap();
    child.wait().unwrap();
    becomes_free(port);
    // Crashed, and ended by the store's own end while the process goes on: the port is free for the next one.
    env.run(&format!("{}\nimport os; os.abort()", serve(port)), &[]);
    becomes_free(port);
    env.run(
        &format!(
            "for i in range(3):\n    s = TCPStore('127.0.0.1', {port}, is_master=True); assert s.add('k', 1) == 1\n    \
             del s\nprint('three times')"
        ),
        &[],
    )
    .exits(0)
    .says("three times");
    // A thread that ends is no reason: the store is the process's.
    env.run(
        &format!(
            "import threading, time\nmade = []\nt = threading.Thread(target=lambda: made.append(TCPStore('127.0.0.1', {port}, is_master=True)))\n\
             t.start(); t.join(); time.sleep(0.5); print(made[0].add('k', 1), 'after the thread')"
        ),
        &[],
    )
    .exits(0)
    .says("1 after the thread");
    // Several stores of one process share a server, which lives as long as one of them.
    env.run(
        &format!(
            "import time\na = TCPStore('127.0.0.1', {port}, is_master=True, multi_tenant=True)\n\
             b = TCPStore('127.0.0.1', {port}, is_master=True, multi_tenant=True)\na.add('k', 1); del a; time.sleep(0.3)\n\
             print(b.add('k', 1), len(hook.servers), 'server')"
        ),
        &[],
    )
    .exits(0)
    .says("2 1 server");
    // A program that waits for its children meets none that it did not start.
    env.run(
        &format!(
            "import os\ns = TCPStore('127.0.0.1', {port}, is_master=True)\ntry:\n    os.wait()\nexcept ChildProcessError:\n    print('no child')"
        ),
        &[],
    )
    .exits(0)
    .says("no child");
}

#[test]
fn loopback_stays_on_loopback_and_what_others_know_by_a_name_does_not() {
    let env = Env::new();
    let listening = |host: &str, vars: &[(&str, &str)]| {
        let port = free_port();
        let ran = env.run(
            &format!(
                "s = TCPStore('{host}', {port}, is_master=True)\nhexport = '%04X' % {port}\n\
                 for name in ('tcp', 'tcp6'):\n    for l in open('/proc/net/' + name).read().splitlines()[1:]:\n        \
                 f = l.split()\n        if f[3] == '0A' and f[1].endswith(':' + hexport): print(f[1].split(':')[0])"
            ),
            vars,
        );
        ran.exits(0).stdout
    };
    for host in ["127.0.0.1", "localhost"] {
        let found = listening(host, &[]);
        assert!(found.contains("0100007F"), "{found}");
        assert!(!found.contains("00000000\n"), "{found}");
    }
    for (host, vars) in [("localhost", vec![("UVSTORE_LISTEN", "everywhere")]), ("0.0.0.0", vec![])] {
        let found = listening(host, &vars);
        assert!(found.lines().all(|a| a.chars().all(|c| c == '0')) && !found.is_empty(), "{host}: {found}");
    }
}

#[test]
fn it_is_never_worse_than_stock() {
    let env = Env::new();
    let store = "s = TCPStore('127.0.0.1', 0, is_master=True); print('master', s.is_master)";
    let missing = [("UVSTORE_PROGRAM", "/no/such/uvstore")];
    // One warning for all stores of a process, and the legacy store.
    let ran = env.run(&format!("{store}\n{store}"), &missing).exits(0).says("master True\nmaster True");
    assert_eq!(ran.stderr.matches("RuntimeWarning: uvstore cannot serve").count(), 1, "{}", ran.stderr);
    let required = [("UVSTORE_PROGRAM", "/no/such/uvstore"), ("UVSTORE", "require")];
    env.run(store, &required).exits(1).says("UVSTORE=require forbids the legacy store");
    // A program that says nothing of use, and one that may not be executed.
    env.run(store, &[("UVSTORE_PROGRAM", "/bin/true")]).exits(0).says("did not say where it serves");
    let file = env.dir.path().join("no-program");
    std::fs::write(&file, "").unwrap();
    let vars = [("UVSTORE_PROGRAM", file.to_str().unwrap())];
    env.run(store, &vars).exits(0).says("Permission denied").says("master True");
    // One that a virus scanner holds: it was started, and says nothing.
    let held = env.dir.path().join("held");
    std::fs::write(&held, "#!/bin/sh\nexec sleep 60\n").unwrap();
    Command::new("chmod").arg("+x").arg(&held).status().unwrap();
    let vars = [("UVSTORE_PROGRAM", held.to_str().unwrap())];
    env.run(&format!("hook._PATIENCE = 1\n{store}"), &vars)
        .exits(0)
        .says("did not begin to serve within 1 s")
        .says("master True");
    // A Python that may write nowhere, and has no home.
    let nowhere = [("HOME", "/nonexistent"), ("TMPDIR", "/nonexistent"), ("UVSTORE_LOG", "/proc/nonexistent/log")];
    env.run(&format!("{store}; print(len(hook.servers), 'server')"), &nowhere).exits(0).says("master False\n1 server");
    // Off is off.
    env.run(store, &[("UVSTORE", "0")]).exits(1).says("built without libuv support");
    // A port that is taken is told as torch tells it, which its callers act upon.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let ran = env.run(&format!("TCPStore('127.0.0.1', {port}, is_master=True)"), &[]).exits(1);
    let ran = ran.says("Address already in use");
    assert!(!ran.stderr.contains("RuntimeWarning"), "{}", ran.stderr);
    // An address that is not this machine's: torch's server listens everywhere, and its client knows no way there.
    env.run(
        "from datetime import timedelta\nTCPStore('192.0.2.1', 0, is_master=True, timeout=timedelta(seconds=1))",
        &[],
    )
    .exits(1)
    .says("serving 192.0.2.1:")
    .says("stopping the server");
}

#[test]
fn where_no_torch_is_imported_nothing_is_done_and_a_broken_torch_is_no_more_broken() {
    let env = Env::new();
    let python = |vars: &[(&str, &str)], program: &str| {
        let mut command = Command::new(env.python());
        Ran::of(command.args(["-c", program]).envs(vars.iter().copied()), Path::new("/nowhere"))
    };
    let loaded = "import sys; print(sorted(m for m in sys.modules if m.startswith('uvstore')), 'json' in sys.modules)";
    assert_eq!(python(&[], loaded).exits(0).stdout, "['uvstore'] False\n");
    // No torch; a folder that is called so; one whose import fails.
    python(&[], "import torch.distributed").exits(1).says("No module named 'torch'");
    let broken = env.dir.path().join("broken");
    std::fs::create_dir_all(broken.join("torch")).unwrap();
    let path = [("PYTHONPATH", broken.to_str().unwrap())];
    python(&path, "import torch.distributed").exits(1).says("No module named 'torch.distributed'");
    std::fs::create_dir_all(broken.join("torch/distributed")).unwrap();
    std::fs::write(broken.join("torch/distributed/__init__.py"), "raise ImportError('its own fault')").unwrap();
    python(&path, "import torch.distributed").exits(1).says("ImportError: its own fault");
    std::fs::write(broken.join("torch/distributed/__init__.py"), "fine = 1").unwrap();
    python(&path, "import torch.distributed as d; print(d.fine)").exits(0).says("1");
    // A second hook, of another version, leaves the first one alone.
    env.run("print(hook.install())", &[]).exits(0).says("False").says("another hook is here already");
}

#[test]
fn the_launcher_serves_those_who_install_nothing() {
    let (program, env) = (&made().1, Env::new());
    let run = |args: &[&str]| Ran::of(Command::new(program).args(args).current_dir(root()), Path::new("/nowhere"));
    // The program's code is ours; what is wrong is told.
    run(&["run", "--", "sh", "-c", "exit 7"]).exits(7).says("no Python of this run read the hook");
    run(&["run", "--", "no-such-program"]).exits(3).says("cannot be started");
    run(&["run"]).exits(2).says("run what?");
    run(&["serve", "--port", "many"]).exits(2).says("a number from 0 to 65535");
    run(&["check"]).exits(2).says("--port is needed");
    run(&["--version"]).exits(0).says("the store of PyTorch ").says(", libuv 1.");
    let taken = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    run(&["serve", "--port", &port]).exits(3).says(&port);
    // A Python that reads no environment did not run the hook.
    run(&["run", "--", "python3", "-I", "-c", ""]).exits(0).says("no Python of this run read the hook");

    let site = env.dir.path().join("site");
    let torch = |program: &str| {
        let mut command = Command::new(made().1.as_path());
        command.args([
            "run",
            "--",
            "python3",
            "-c",
            &format!("from torch.distributed import TCPStore\nimport os\n{program}"),
        ]);
        Ran::of(command.env("PYTHONPATH", &site).env("UVSTORE_LOG", "stderr"), Path::new("/nowhere"))
    };
    // Where the environment says, it is the launcher's server; elsewhere one of its own.
    torch("s = TCPStore(os.environ['MASTER_ADDR'], int(os.environ['MASTER_PORT']), 1, True); print(s.add('k', 1))")
        .exits(0)
        .says("is served by `uvstore run`");
    torch("s = TCPStore(os.environ['MASTER_ADDR'], int(os.environ['MASTER_PORT']), 1, True, use_libuv=False); print(s.add('k', 1))")
        .exits(0)
        .says("is served by `uvstore run`");
    let elsewhere = torch("s = TCPStore('127.0.0.1', 0, 1, True); print(s.add('k', 1))").exits(0);
    assert!(elsewhere.says("serving 127.0.0.1:").stdout.starts_with('1'));
    // A sitecustomize of one's own runs too.
    std::fs::write(site.join("sitecustomize.py"), "print('the next one')\n").unwrap();
    torch("print('and torch')").exits(0).says("the next one\nand torch");
    // The command that pip installs is the program.
    let command = env.dir.path().join("v/bin/uvstore");
    Ran::of(Command::new(command).args(["run", "--", "sh", "-c", "exit 9"]), Path::new("/nowhere")).exits(9);
}

/// A table that grows under several threads makes a process wait for all processors, once for each doubling.
#[test]
#[cfg(target_os = "linux")]
fn the_table_of_files_has_room_for_a_thousand_clients_before_the_first_one_comes() {
    let program = &made().1;
    let mut tied = Command::new(program);
    tied.args(["serve", "--tie", &std::process::id().to_string()]);
    let mut alone = Command::new(program);
    alone.arg("serve");
    for mut command in [tied, alone] {
        let mut server = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let said: serde_json::Value = serde_json::from_str(&line).unwrap();
        let pid = said["pid"].as_u64().map_or_else(|| server.id().to_string(), |pid| pid.to_string());
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let table: u64 = status.lines().find_map(|l| l.strip_prefix("FDSize:")).unwrap().trim().parse().unwrap();
        assert!(Command::new("kill").args(["-9", &pid]).status().unwrap().success());
        server.wait().unwrap();
        let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
        let hard = limits.lines().find(|l| l.starts_with("Max open files")).unwrap().split_whitespace().nth(4).unwrap();
        assert!(table >= 2048 || hard.parse().is_ok_and(|most: u64| table * 2 > most), "{table} of {hard}");
    }
}

#[test]
fn clients_that_die_in_the_middle_do_not_matter_to_the_others() {
    let program = &made().1;
    let mut server = Command::new(program).args(["serve"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let said: serde_json::Value = serde_json::from_str(&line).unwrap();
    let port = said["port"].to_string();
    let check = ["check", "--address", "localhost", "--port", &port, "--clients", "16"];
    let mut dying = Command::new(program).args(check).args(["--rounds", "1000000", "--first", "5000"]).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(500));
    dying.kill().unwrap();
    dying.wait().unwrap();
    Ran::of(Command::new(program).args(check), Path::new("/nowhere")).exits(0).says("\"ok\": true");
    server.kill().unwrap();
    server.wait().unwrap();
}

/// Every licence that the metadata names is there, nothing else is, and `linked` is among them.
fn says_its_licenses(archive: &mut zip::ZipArchive<std::fs::File>, linked: &[&str]) {
    let info = concat!("uvstore-", env!("CARGO_PKG_VERSION"), ".dist-info");
    let mut text = |name: &str| {
        let mut text = String::new();
        archive.by_name(&format!("{info}/{name}")).unwrap().read_to_string(&mut text).unwrap();
        text
    };
    let metadata = text("METADATA");
    let named: Vec<&str> = metadata.lines().filter_map(|l| l.strip_prefix("License-File: ")).collect();
    for name in
        ["uvstore/LICENSE-MIT", "pytorch/LICENSE", "pytorch/NOTICE", "fmt/LICENSE", "libuv/LICENSE", "gcc/COPYING3"]
    {
        assert!(named.contains(&name), "{name}: {metadata}");
    }
    assert!(linked.iter().all(|name| named.contains(name)), "{metadata}");
    assert!(named.iter().all(|name| text(&format!("licenses/{name}")).len() > 100));
    let lgpl = linked.iter().any(|name| name.starts_with("glibc"));
    let expression = metadata.lines().find(|l| l.starts_with("License-Expression: (MIT OR Apache-2.0) AND ")).unwrap();
    assert_eq!(expression.contains("LGPL"), lgpl, "{expression}");
    // Which C library it is, and how to have another one.
    let about = text("licenses/README.txt");
    assert_eq!(about.contains("GNU C Library ("), lgpl, "{about}");
    assert_eq!(about.contains("link the program with your own"), lgpl, "{about}");
    let folder = format!("{info}/licenses/");
    let there = archive.file_names().filter(|name| name.as_ref().unwrap().starts_with(&folder)).count();
    assert_eq!(there, named.len());
}

#[test]
fn the_wheel_is_small_static_and_the_same_whenever_it_is_packed() {
    let (wheel, program) = made();
    let name = wheel.file_name().unwrap().to_string_lossy().into_owned();
    assert!(name.starts_with("uvstore-") && name.contains("-py3-none-manylinux"), "{name}");
    assert!(std::fs::metadata(wheel).unwrap().len() < 5_000_000);
    assert_eq!(uvstore(&["--wheel"])["sha256"], crate::support::sha256(&std::fs::read(wheel).unwrap()));
    let mut archive = zip::ZipArchive::new(std::fs::File::open(wheel).unwrap()).unwrap();
    let mut metadata = String::new();
    let info = format!("{}.dist-info/METADATA", name.split("-py3").next().unwrap());
    archive.by_name(&info).unwrap().read_to_string(&mut metadata).unwrap();
    assert!(!metadata.contains("Requires-Dist"), "{metadata}");
    says_its_licenses(&mut archive, &["glibc/COPYING.LIB", "glibc/LICENSES", "gcc/COPYING.RUNTIME"]);
    let mode = archive.by_name("uvstore/bin/uvstore").unwrap().unix_mode().unwrap();
    assert_eq!(mode & 0o111, 0o111);
    // It asks for no library of the machine, and names no folder of the one that made it.
    let bytes = std::fs::read(program).unwrap();
    let elf = object::read::elf::ElfFile64::<object::Endianness>::parse(&*bytes).unwrap();
    use object::Object;
    assert_eq!(elf.imports().unwrap().count(), 0);
    let store = shared_store().to_string_lossy().into_owned();
    assert!(memchr::memmem::find(&bytes, store.as_bytes()).is_none());
}

#[test]
#[ignore = "takes too much: compiles for minutes, and TORCHMILL_STOCK_PYTHONS must name Pythons with a stock torch"]
fn stock_torches_meet_on_the_program() {
    let uvstore = &made().1;
    let run = |args: &[&str]| Ran::of(Command::new(uvstore).args(args).current_dir(root()), Path::new("/nowhere"));
    let pythons = std::env::var("TORCHMILL_STOCK_PYTHONS").expect("TORCHMILL_STOCK_PYTHONS");
    for python in pythons.split(':').filter(|p| !p.is_empty()) {
        let script = "tests/scenarios/uvstore_ranks.py";
        for ranks in ["2", "64"] {
            let ran = run(&["run", "--", python, script, ranks]).exits(0).says("\"served_by_uvstore\": true");
            eprint!("{}", ran.stdout);
        }
        let torchrun = ["run", "--", python, "-m", "torch.distributed.run", "--nproc-per-node", "2", script];
        let ran = run(&torchrun).exits(0).says("\"served_by_uvstore\": true");
        eprint!("{}", ran.stdout);
    }
}

/// Starts the program as the hook does on Windows, tied to itself, and lives as long as it: Python's part, on Wine.
const STARTER: &str = r#"
#include <windows.h>
#include <stdio.h>
#include <string.h>
int main(int argc, char** argv) {
  char line[4096];
  HANDLE out, in;
  SECURITY_ATTRIBUTES inherited = {sizeof inherited, NULL, TRUE};
  STARTUPINFOA start = {sizeof start};
  PROCESS_INFORMATION started;
  DWORD n = 0;
  CreatePipe(&out, &in, &inherited, 0);
  SetHandleInformation(out, HANDLE_FLAG_INHERIT, 0);
  start.dwFlags = STARTF_USESTDHANDLES;
  start.hStdOutput = in;
  snprintf(line, sizeof line, "\"%s\" serve --tie %lu", argv[1], GetCurrentProcessId());
  for (int i = 2; i < argc; i++) {
    strcat(line, " ");
    strcat(line, argv[i]);
  }
  if (!CreateProcessA(NULL, line, NULL, NULL, TRUE, CREATE_NO_WINDOW | CREATE_NEW_PROCESS_GROUP, NULL, NULL, &start, &started))
    return 1;
  CloseHandle(in);
  ReadFile(out, line, sizeof line - 1, &n, NULL);
  fwrite(line, 1, n, stdout);
  fflush(stdout);
  WaitForSingleObject(started.hProcess, INFINITE);
  return 0;
}
"#;

/// The wheel for Windows, its program, and the starter, which lies in the folder.
fn made_for_windows() -> &'static (PathBuf, PathBuf, PathBuf) {
    static MADE: OnceLock<(PathBuf, PathBuf, PathBuf)> = OnceLock::new();
    MADE.get_or_init(|| {
        let json = uvstore(&["--wheel", "--target", "windows"]);
        assert_eq!(json["check"]["ok"], true);
        let dir = tempfile::tempdir().unwrap().keep();
        let (source, starter) = (dir.join("starter.c"), dir.join("starter.exe"));
        std::fs::write(&source, STARTER).unwrap();
        let compiled = Command::new("x86_64-w64-mingw32-gcc-posix").arg(&source).arg("-o").arg(&starter).status();
        assert!(compiled.unwrap().success());
        let path = |name: &str| PathBuf::from(json[name].as_str().unwrap());
        (path("wheel"), path("program"), starter)
    })
}

fn wine() -> (&'static str, PathBuf) {
    (if Path::new("/usr/bin/wine64").exists() { "wine64" } else { "wine" }, shared_store().join("v1/cache/wine"))
}

/// This test's turn with the drive of [`wine`]: whoever ends what runs there waits for it.
fn turn() -> std::fs::File {
    locked(&wine().1.with_extension("lock"))
}

#[test]
#[ignore = "needs mingw-w64 and Wine"]
fn on_windows_the_server_ends_with_the_process_that_started_it() {
    let (wheel, program, starter) = made_for_windows();
    assert!(wheel.to_string_lossy().ends_with("-py3-none-win_amd64.whl"));
    let size = std::fs::metadata(wheel).unwrap().len();
    assert!(size < 5_000_000, "{size}");
    let mut archive = zip::ZipArchive::new(std::fs::File::open(wheel).unwrap()).unwrap();
    says_its_licenses(&mut archive, &["mingw-w64/COPYING", "winpthreads/COPYING", "gcc/COPYING.RUNTIME"]);
    for name in
        ["uvstore.pth", "uvstore/__init__.py", "uvstore/hook.py", "uvstore/__main__.py", "uvstore/bin/uvstore.exe"]
    {
        assert!(archive.index_for_name(name).is_some(), "{name}");
    }

    let _turn = turn();
    // As Wine names a file of this machine.
    let program = format!("Z:{}", program.to_str().unwrap().replace('/', "\\"));
    let start = |port: &str| {
        let (wine, drive) = wine();
        let mut command = Command::new(wine);
        command.arg(starter).arg(&program).args(["--port", port]).env("WINEPREFIX", drive);
        let mut child = command.env("WINEDEBUG", "-all").stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        (child, serde_json::from_str::<serde_json::Value>(&line).unwrap_or_else(|e| panic!("{e}: {line}")))
    };
    let (mut first, said) = start("0");
    let port = u16::try_from(said["port"].as_u64().unwrap()).unwrap();
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    // A second server does not get the same address.
    let (mut second, refused) = start(&port.to_string());
    assert_eq!(refused["taken"], true, "{refused}");
    second.kill().unwrap();
    second.wait().unwrap();
    first.kill().unwrap();
    first.wait().unwrap();
    becomes_free(port);
}

/// A Python that the hook takes for one of Windows: the wheel is installed as pip lays it there, and what the hook
/// starts goes to Wine.
const AS_ON_WINDOWS: &str = r#"
import os, site, subprocess, sys
site.addsitedir(sys.argv[1])
from torch.distributed import TCPStore
from uvstore import hook

class Nt:
    name = "nt"
    def __getattr__(self, name):
        assert name not in ("register_at_fork", "fork", "execv", "wait"), name
        return getattr(os, name)

class Started:
    PIPE, DEVNULL = subprocess.PIPE, subprocess.DEVNULL
    def Popen(self, argv, creationflags, **options):
        assert creationflags == 0x08000200 and "pass_fds" not in options, options
        assert argv[0].endswith("uvstore.exe") and argv[1] == "serve", argv
        tie = argv.index("--tie")
        assert argv[tie + 1] == str(os.getpid())
        named = "Z:" + argv[0].replace("/", "\\")
        rest = argv[2:tie] + argv[tie + 2:]
        return subprocess.Popen([os.environ["WINE"], os.environ["STARTER"], named] + rest, **options)

hook.os, hook.subprocess = Nt(), Started()
import time

a = TCPStore("127.0.0.1", 0, is_master=True, multi_tenant=True)
b = TCPStore("127.0.0.1", a.port, is_master=True, multi_tenant=True)
print("sum", a.add("k", 1) + b.add("k", 1), "servers", len(hook.servers))
server = hook.servers[a.port]
port = a.port
del a
time.sleep(0.5)
print("alive with one store", server.is_alive(), b.add("k", 1))
try:
    TCPStore("127.0.0.1", port, is_master=True)
except OSError as e:
    print("taken:", e)
del b
while server.is_alive():
    time.sleep(0.05)
again = TCPStore("127.0.0.1", port, is_master=True)
print("again", again.add("k", 1))
os.environ["UVSTORE_PROGRAM"] = "/no/such/uvstore.exe"
print("legacy", TCPStore("127.0.0.1", 0, is_master=True).is_master)
print("port", port, flush=True)
os._exit(0)
"#;

#[test]
#[ignore = "needs mingw-w64 and Wine"]
fn what_the_hook_does_on_windows_is_what_the_program_there_expects() {
    let (wheel, _, starter) = made_for_windows();
    let dir = tempfile::tempdir().unwrap();
    let site = dir.path().join("Lib/site-packages");
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--only-binary", ":all:"]);
    pip.args(["--platform", "win_amd64", "--target"]).arg(&site).arg(wheel);
    Ran::of(&mut pip, dir.path()).exits(0);
    assert!(site.join("uvstore.pth").is_file());
    let torch = root().join("tests/scenarios/torch_without_libuv.py");
    Ran::of(Command::new("python3").arg(torch).arg(dir.path().join("torch")), dir.path()).exits(0);
    let _turn = turn();
    let (wine, drive) = wine();
    let mut python = Command::new("python3");
    python.args(["-c", AS_ON_WINDOWS]).arg(&site).env("PYTHONPATH", dir.path().join("torch"));
    python.envs([("WINE", wine), ("WINEDEBUG", "-all"), ("UVSTORE_LOG", "stderr")]);
    python.env("STARTER", starter).env("WINEPREFIX", drive);
    let ran = Ran::of(&mut python, dir.path()).exits(0).says("sum 3 servers 1\nalive with one store True 3\n");
    let ran = ran.says("taken: [Errno 98] Address already in use\nagain 1\n").says("legacy True");
    // The process ended with its last store open.
    becomes_free(ran.stdout.trim().rsplit(' ').next().unwrap().parse().unwrap());
}
