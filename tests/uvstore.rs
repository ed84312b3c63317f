//! uvstore's hook, on a torch that this file makes up; and, on request, the program with a real one.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::{Ran, root, shared_store};

/// A torch of two modules, whose TCPStore says what it was made with.
fn fake_torch(dir: &Path) {
    let write = |name: &str, text: &str| {
        let path = dir.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("torch/__init__.py", "");
    write(
        "torch/_C/__init__.py",
        "import sys, types\n\
class TCPStore:\n    \
    def __init__(self, host_name, port, world_size=None, is_master=False, timeout=300, wait_for_workers=True, multi_tenant=False, master_listen_fd=None, use_libuv=True):\n        \
        if use_libuv:\n            \
            raise RuntimeError('use_libuv was requested but PyTorch was build without libuv support')\n        \
        self.made = (host_name, port, world_size, is_master, timeout, wait_for_workers, multi_tenant, master_listen_fd)\n\
def _c10d_init():\n    \
    global _distributed_c10d\n    \
    assert __name__ + '._distributed_c10d' not in sys.modules, 'twice'\n    \
    _distributed_c10d = types.ModuleType(__name__ + '._distributed_c10d')\n    \
    _distributed_c10d.TCPStore = TCPStore\n    \
    sys.modules[_distributed_c10d.__name__] = _distributed_c10d\n    \
    return True\n",
    );
    write(
        "torch/distributed/__init__.py",
        "import torch._C\nassert torch._C._c10d_init()\nfrom torch._C._distributed_c10d import TCPStore\nseen = __file__\n",
    );
}

fn python(hook: bool, dir: &Path, program: &str) -> String {
    let sources = root().join("xtask/src/stage/uvstore");
    let site = dir.join("hook");
    std::fs::create_dir_all(&site).unwrap();
    std::fs::copy(sources.join("sitecustomize.py"), site.join("sitecustomize.py")).unwrap();
    let path = if hook { format!("{}:{}", site.display(), dir.display()) } else { dir.display().to_string() };
    let out = Command::new("python3")
        .args(["-c", program])
        .env("PYTHONPATH", path)
        .env("UVSTORE", "127.0.0.1:29511")
        .output()
        .unwrap();
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

#[test]
fn the_hook_makes_clients_of_the_server_and_asks_nobody_for_libuv() {
    let dir = tempfile::tempdir().unwrap();
    fake_torch(dir.path());
    let make = |call: &str| format!("from torch.distributed import TCPStore\nprint(TCPStore({call}).made)");
    // Without the hook: the known error.
    assert!(python(false, dir.path(), &make("'h', 29511, 2, True")).contains("without libuv support"));
    // The rendezvous' own calls, by name and by place.
    let by_name =
        "host_name='h', port=29511, world_size=2, is_master=True, timeout=9, multi_tenant=True, use_libuv=True";
    assert_eq!(python(true, dir.path(), &make(by_name)), "('h', 29511, 2, False, 9, True, True, None)\n");
    let by_place = "'h', 29511, 2, True, 9, False, True, 7, True";
    assert_eq!(python(true, dir.path(), &make(by_place)), "('h', 29511, 2, False, 9, False, True, None)\n");
    // A store elsewhere stays what it is, but for libuv.
    assert_eq!(python(true, dir.path(), &make("'h', 1, 2, True")), "('h', 1, 2, True, 300, True, False, None)\n");
    assert_eq!(
        python(true, dir.path(), &make("'h', 0, is_master=True, master_listen_fd=4")),
        "('h', 0, None, True, 300, True, False, 4)\n"
    );
}

#[test]
fn the_hook_leaves_other_programs_and_other_sitecustomizes_alone() {
    let dir = tempfile::tempdir().unwrap();
    fake_torch(dir.path());
    std::fs::write(dir.path().join("sitecustomize.py"), "print('the next one')\n").unwrap();
    assert_eq!(python(true, dir.path(), "print('no torch')"), "the next one\nno torch\n");
    // What is asked of the package's own loader works still.
    let said = python(true, dir.path(), "import torch.distributed as d; print(d.__spec__.name, d.seen == d.__file__)");
    assert_eq!(said, "the next one\ntorch.distributed True\n");
}

#[test]
#[ignore = "takes too much: compiles for minutes, and TORCHMILL_STOCK_PYTHONS must name Pythons with a stock torch"]
fn stock_torches_meet_on_the_program() {
    let out = tempfile::tempdir().unwrap();
    let mut build = Command::new(env!("CARGO_BIN_EXE_xtask"));
    build.args(["uvstore", "--json", "--out"]).arg(out.path()).current_dir(root());
    let ran = Ran::of(build.env("TORCHMILL_STORE", shared_store()), Path::new("/nowhere")).exits(0);
    let json: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let uvstore = json["program"].as_str().unwrap().to_owned();
    assert_eq!(json["check"]["ok"], true);
    let run = |args: &[&str]| Ran::of(Command::new(&uvstore).args(args).current_dir(root()), Path::new("/nowhere"));

    // The program's code is ours; what is wrong is told.
    run(&["run", "--", "sh", "-c", "exit 7"]).exits(7);
    run(&["run", "--", "no-such-program"]).exits(3).says("cannot be started");
    run(&["run"]).exits(2).says("run what?");
    run(&["serve", "--port", "many"]).exits(2).says("a number from 0 to 65535");
    run(&["check"]).exits(2).says("--port is needed");
    let taken = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    run(&["serve", "--port", &port]).exits(3).says(&port);

    // Clients that die in the middle do not matter to the others.
    let mut server = Command::new(&uvstore).args(["serve"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let said: serde_json::Value = serde_json::from_str(&line).unwrap();
    let port = said["port"].to_string();
    let check = ["check", "--port", &port, "--clients", "16"];
    let mut dying =
        Command::new(&uvstore).args(check).args(["--rounds", "1000000", "--first", "5000"]).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(500));
    dying.kill().unwrap();
    dying.wait().unwrap();
    run(&check).exits(0).says("\"ok\": true");
    server.kill().unwrap();
    server.wait().unwrap();

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
