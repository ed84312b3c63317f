"""One rank of an elastic job: in its first life rank 1 is killed in the middle; torchrun starts all
ranks again, they meet again, and the sum is right."""

import json
import os
import signal

import torch
import torch.distributed as dist

restarts = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
dist.init_process_group("gloo", init_method="env://")
rank, world = dist.get_rank(), dist.get_world_size()
t = torch.full((1000,), float(rank + 1))
dist.all_reduce(t)
assert torch.equal(t, torch.full((1000,), world * (world + 1) / 2)), "the all-reduce is wrong"
dist.barrier()
if restarts == 0 and rank == 1:
    os.kill(os.getpid(), signal.SIGKILL)
if restarts == 0:
    # Waits for the rank that died: the agent ends this one.
    dist.barrier()
store = dist.distributed_c10d._get_default_store()
while hasattr(store, "underlying_store"):
    store = store.underlying_store
dist.barrier()
if rank == 0:
    print(json.dumps({"scenario": "elastic", "ranks": world, "restarts": restarts,
                      "libuv": bool(getattr(store, "libuvBackend", False))}), flush=True)
dist.destroy_process_group()
