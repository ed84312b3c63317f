"""One rank of an elastic job: in its first life rank 1 is killed in the middle; torchrun starts all
ranks again, they meet again, and the sum is right."""

import json
import os
import signal

import torch
import torch.distributed as dist

restarts = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
# Each life has names of its own in the agent's store. torchrun of 2.12.1 gives all lives one store: with
# init_method="env://" alone, Gloo finds addresses of ranks that died there, and waits for them (so in the stock
# wheel, now and then).
store, rank, world = next(dist.rendezvous("env://"))
dist.init_process_group("gloo", store=dist.PrefixStore(f"life_{restarts}", store), rank=rank, world_size=world)
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
