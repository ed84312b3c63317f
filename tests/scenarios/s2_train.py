"""The shape of GPT-SoVITS' s2_train.py: mp.spawn, init_process_group, DDP, a few steps, a
checkpoint by rank 0; with the `use_libuv=False` workaround removed from the init_method."""

import json
import os
import sys
import tempfile

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel as DDP
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler


class Generator(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv1d(4, 16, 5, padding=2), nn.LeakyReLU(0.1), nn.Conv1d(16, 4, 5, padding=2))

    def forward(self, x):
        return self.net(x)


def run(rank, n_gpus, folder):
    dist.init_process_group(
        backend="gloo" if os.name == "nt" or not torch.cuda.is_available() else "nccl",
        init_method="env://",
        world_size=n_gpus,
        rank=rank,
    )
    # As its author does it: a GPU each where there are any, whatever carries the sums.
    device = torch.device("cpu")
    if torch.cuda.is_available():
        torch.cuda.set_device(rank)
        device = torch.device("cuda", rank)
    torch.manual_seed(1234)
    data = TensorDataset(torch.randn(64, 4, 32))
    sampler = DistributedSampler(data, num_replicas=n_gpus, rank=rank, shuffle=True)
    loader = DataLoader(data, batch_size=8, sampler=sampler)
    net = DDP(Generator().to(device))
    optim = torch.optim.AdamW(net.parameters(), 1e-2)
    losses = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        for (x,) in loader:
            x = x.to(device)
            loss = nn.functional.l1_loss(net(x), x)
            optim.zero_grad()
            loss.backward()
            optim.step()
            losses.append(loss.item())
    assert len(losses) == 2 * len(loader), losses
    assert losses[-1] < losses[0], f"the loss did not fall: {losses}"
    # DDP keeps all ranks' weights the same: that is the collective at work.
    own = torch.cat([p.detach().flatten() for p in net.parameters()])
    mean = own.clone()
    dist.all_reduce(mean)
    torch.testing.assert_close(mean / n_gpus, own)
    if rank == 0:
        torch.save(net.module.state_dict(), os.path.join(folder, "G_latest.pth"))
        store = dist.distributed_c10d._get_default_store()
        while hasattr(store, "underlying_store"):
            store = store.underlying_store
        print(json.dumps({"scenario": "s2_train", "ranks": n_gpus, "device": device.type,
                          "libuv": bool(getattr(store, "libuvBackend", False)), "first_loss": losses[0], "last_loss": losses[-1]}), flush=True)
    dist.barrier()
    dist.destroy_process_group()


def main():
    n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 2
    os.environ["MASTER_ADDR"] = "localhost"
    os.environ.setdefault("MASTER_PORT", "29517")
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(run, nprocs=n_gpus, args=(n_gpus, folder))
        assert os.path.getsize(os.path.join(folder, "G_latest.pth")) > 0


if __name__ == "__main__":
    sys.exit(main())
