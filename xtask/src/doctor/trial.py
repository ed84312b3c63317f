"""Tries a torch: one JSON line a step. Run with the environment of whoever asks; ranks meet on the loopback interface."""
import json
import os
import socket
import subprocess
import sys
import time
from datetime import timedelta

SCRIPT = os.environ["DOCTOR_SCRIPT"]
RANK = int(os.environ.get("DOCTOR_RANK", "0"))
LIMIT = timedelta(seconds=30)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def attempt(step, work):
    started = time.monotonic()
    said = {"step": step, "ok": True}
    try:
        said.update(work() or {})
    except BaseException as e:  # a script that ends the interpreter has failed too
        lines = str(e).strip().splitlines() or [""]
        said.update(ok=False, error=f"{type(e).__name__}: {lines[0]}"[:2000])
    said["seconds"] = round(time.monotonic() - started, 3)
    if RANK == 0:
        print("\n" + json.dumps(said), flush=True)
    return said["ok"]


def import_torch():
    import torch
    import torch.distributed as dist

    try:
        devices = torch.cuda.device_count()
    except Exception:  # a driver that does not answer is another question
        devices = 0
    return {"distributed": dist.is_available(), "devices": devices}


def runs_on_libuv(store):
    while hasattr(store, "underlying_store"):
        store = store.underlying_store
    return bool(getattr(store, "libuvBackend", False))


def init():
    import torch
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method="env://", timeout=LIMIT)
    t = torch.ones(8) * (dist.get_rank() + 1)
    dist.all_reduce(t)
    assert torch.equal(t, torch.full((8,), 3.0)), t
    libuv = runs_on_libuv(dist.distributed_c10d._get_default_store())
    dist.barrier()
    dist.destroy_process_group()
    return {"libuv": libuv}


def store():
    import torch.distributed as dist

    server = dist.TCPStore("127.0.0.1", 0, None, True, LIMIT, wait_for_workers=False)
    client = dist.TCPStore("127.0.0.1", server.port, None, False, LIMIT)
    client.set("k", "v")
    assert server.get("k") == b"v"
    return {"libuv": runs_on_libuv(server)}


def agent():
    from torch.distributed.elastic.rendezvous import RendezvousParameters
    from torch.distributed.elastic.rendezvous.static_tcp_rendezvous import create_rdzv_handler

    endpoint = f"127.0.0.1:{free_port()}"
    handler = create_rdzv_handler(RendezvousParameters("static", endpoint, "doctor", 1, 1, rank=0, timeout=30))
    handler.next_rendezvous()
    return {"libuv": runs_on_libuv(handler._store)}


if RANK == 1:
    sys.exit(0 if attempt("import", import_torch) and attempt("init", init) else 1)

os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free_port()), WORLD_SIZE="2", RANK="0")
quiet = subprocess.DEVNULL
peer = subprocess.Popen(
    [sys.executable, "-c", SCRIPT], env=dict(os.environ, RANK="1", DOCTOR_RANK="1"), stdin=quiet, stdout=quiet, stderr=quiet
)
try:
    if attempt("import", import_torch) and sys.modules["torch.distributed"].is_available():
        attempt("init", init)
        attempt("store", store)
        attempt("agent", agent)
finally:
    peer.kill()
    peer.wait()
# Threads of a store must not hold the answer up.
sys.stdout.flush()
os._exit(0)
