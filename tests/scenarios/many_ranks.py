"""Many ranks on one machine, `env://`, Gloo, nothing set that chooses a store. The ranks are forked
from one process, so that torch is imported once."""

import json
import os
import socket
import sys
import time

import torch
import torch.distributed as dist


def rank_main(rank, world, port, started):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE=str(world))
    dist.init_process_group("gloo", init_method="env://")
    joined = time.monotonic() - started
    t = torch.arange(256, dtype=torch.float32) + rank
    dist.all_reduce(t)
    expected = world * torch.arange(256, dtype=torch.float32) + world * (world - 1) / 2
    assert torch.equal(t, expected), "the all-reduce is wrong"
    dist.barrier()
    if rank == 0:
        store = dist.distributed_c10d._get_default_store()
        while hasattr(store, "underlying_store"):
            store = store.underlying_store
        print(json.dumps({"scenario": "many_ranks", "ranks": world, "seconds_to_join": round(joined, 3),
                          "libuv": bool(getattr(store, "libuvBackend", False))}), flush=True)
    dist.destroy_process_group()


def main():
    world = int(sys.argv[1]) if len(sys.argv) > 1 else 64
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    started = time.monotonic()
    children = []
    for rank in range(world):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                rank_main(rank, world, port, started)
                status = 0
            except BaseException as e:
                print(f"rank {rank}: {type(e).__name__}: {e}", file=sys.stderr, flush=True)
            finally:
                os._exit(status)
        children.append(pid)
    bad = [pid for pid in children if os.waitpid(pid, 0)[1] != 0]
    return f"{len(bad)} of {world} ranks failed" if bad else 0


if __name__ == "__main__":
    sys.exit(main())
