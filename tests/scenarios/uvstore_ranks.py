"""Ranks whose rendezvous `uvstore run` serves: `env://`, Gloo, an all-reduce with a known sum.

Run as it is, it forks as many ranks as its argument says; under torchrun it is one rank of that job.
"""

import json
import os
import sys
import time

import torch
import torch.distributed as dist


def rank_main(rank, world, started):
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world))
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
        served = f"{store.host}:{store.port}" == os.environ["UVSTORE_SERVER"]
        assert served, f"the store is at {store.host}:{store.port}, uvstore at {os.environ['UVSTORE']}"
        print(json.dumps({"scenario": "uvstore_ranks", "torch": torch.__version__, "ranks": world,
                          "seconds_to_join": round(joined, 3), "served_by_uvstore": served}), flush=True)
    dist.destroy_process_group()


def main():
    started = time.monotonic()
    if "RANK" in os.environ:
        return rank_main(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), started)
    torch.set_num_threads(1)
    world = int(sys.argv[1])
    children = []
    for rank in range(world):
        pid = os.fork()
        if pid == 0:
            try:
                rank_main(rank, world, started)
            except BaseException as e:  # a child must not return into the parent's code
                print(f"rank {rank}: {e}", file=sys.stderr, flush=True)
                os._exit(1)
            os._exit(0)
        children.append(pid)
    failed = [c for c in children if os.waitpid(c, 0)[1] != 0]
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
