//! uvstore's hook, on a torch that this file makes up; and, on request, the program with a real one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, missing_docs)] // a test that cannot go on panics

mod support;

use std::path::Path;
use std::process::Command;

use support::root;

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
