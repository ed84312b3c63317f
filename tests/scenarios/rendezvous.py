"""Two ranks, `env://`, Gloo, nothing set that chooses a store: the default must be libuv.

Run as it is, it starts its two ranks itself; under torchrun it is one rank of that job.
"""

import json
import os
import socket

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def underlying(store):
    while hasattr(store, "underlying_store"):
        store = store.underlying_store
    return store


def rank_main(rank=None, world=None, port=None):
    if rank is not None:
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE=str(world))
    dist.init_process_group("gloo", init_method="env://")
    rank, world = dist.get_rank(), dist.get_world_size()
    t = torch.arange(1000, dtype=torch.float32) + rank
    dist.all_reduce(t)
    expected = world * torch.arange(1000, dtype=torch.float32) + world * (world - 1) / 2
    assert torch.equal(t, expected), "the all-reduce is wrong"
    store = underlying(dist.distributed_c10d._get_default_store())
    # Under torchrun the agent may serve the store; a client says what it was asked to speak.
    libuv = bool(getattr(store, "libuvBackend", False))
    assert libuv, f"the default store ({type(store).__name__}) does not run on libuv"
    dist.barrier()
    if rank == 0:
        print(json.dumps({"world": world, "libuv": libuv, "store": type(store).__name__}), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    if "RANK" in os.environ:
        rank_main()
    else:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        mp.spawn(rank_main, args=(2, port), nprocs=2)
