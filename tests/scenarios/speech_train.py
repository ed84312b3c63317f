"""The shape of GPT-SoVITS' work: recordings are prepared with torchaudio (read, resampled, mel spectrograms kept on
disk), then trained on by two ranks as its s2_train.py does: mp.spawn, init_process_group, DDP, a checkpoint by rank 0.
Nothing chooses a store.

Prints one line of JSON.
"""

import json
import math
import os
import sys
import tempfile

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torchaudio
from torch import nn
from torch.nn.parallel import DistributedDataParallel as DDP
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler

RECORDINGS = 16
RATE, TRAINED_RATE = 48000, 16000
MELS, FRAMES = 40, 32


def record(folder):
    """What a microphone would have left: a second of a rising tone each, with noise, as 16-bit WAV."""
    torch.manual_seed(1)
    time = torch.arange(RATE) / RATE
    for i in range(RECORDINGS):
        phase = 2 * math.pi * (100 + 20 * i) * (time + time * time)
        wave = 0.5 * torch.sin(phase) + 0.01 * torch.randn(RATE)
        torchaudio.save(os.path.join(folder, f"{i}.wav"), wave.unsqueeze(0), RATE, encoding="PCM_S", bits_per_sample=16)


def prepare(folder):
    """As the project's preparation does it, one recording after the other."""
    resample = torchaudio.transforms.Resample(RATE, TRAINED_RATE)
    mel = torchaudio.transforms.MelSpectrogram(TRAINED_RATE, n_fft=1024, hop_length=256, n_mels=MELS)
    for i in range(RECORDINGS):
        wave, rate = torchaudio.load(os.path.join(folder, f"{i}.wav"))
        assert rate == RATE and wave.shape == (1, RATE), (rate, wave.shape)
        spectrogram = mel(resample(wave))[0, :, :FRAMES].clamp(min=1e-5).log()
        assert spectrogram.shape == (MELS, FRAMES) and bool(spectrogram.isfinite().all())
        torch.save(spectrogram, os.path.join(folder, f"{i}.pt"))


class Recordings(Dataset):
    def __init__(self, folder):
        self.folder = folder

    def __len__(self):
        return RECORDINGS

    def __getitem__(self, i):
        return torch.load(os.path.join(self.folder, f"{i}.pt"), weights_only=True)


def train(rank, n_gpus, folder):
    dist.init_process_group("gloo", init_method="env://", world_size=n_gpus, rank=rank)
    torch.manual_seed(1234)
    data = Recordings(folder)
    sampler = DistributedSampler(data, num_replicas=n_gpus, rank=rank, shuffle=True)
    loader = DataLoader(data, batch_size=4, sampler=sampler)
    net = DDP(nn.Sequential(nn.Conv1d(MELS, 32, 5, padding=2), nn.LeakyReLU(0.1), nn.Conv1d(32, MELS, 5, padding=2)))
    optim = torch.optim.AdamW(net.parameters(), 1e-2)
    losses = []
    for epoch in range(6):
        sampler.set_epoch(epoch)
        for spectrogram in loader:
            loss = nn.functional.l1_loss(net(spectrogram), spectrogram)
            optim.zero_grad()
            loss.backward()
            optim.step()
            losses.append(loss.item())
    assert losses[-1] < losses[0], f"the loss did not fall: {losses}"
    own = torch.cat([p.detach().flatten() for p in net.parameters()])
    mean = own.clone()
    dist.all_reduce(mean)
    torch.testing.assert_close(mean / n_gpus, own)
    if rank == 0:
        torch.save(net.module.state_dict(), os.path.join(folder, "G_latest.pth"))
        store = dist.distributed_c10d._get_default_store()
        while hasattr(store, "underlying_store"):
            store = store.underlying_store
        print(json.dumps({"scenario": "speech_train", "ranks": n_gpus, "recordings": RECORDINGS,
                          "torchaudio": torchaudio.__version__, "libuv": bool(getattr(store, "libuvBackend", False)),
                          "first_loss": losses[0], "last_loss": losses[-1]}), flush=True)
    dist.barrier()
    dist.destroy_process_group()


def main():
    os.environ["MASTER_ADDR"] = "localhost"
    os.environ.setdefault("MASTER_PORT", "29537")
    with tempfile.TemporaryDirectory() as folder:
        record(folder)
        prepare(folder)
        mp.spawn(train, nprocs=2, args=(2, folder))
        assert os.path.getsize(os.path.join(folder, "G_latest.pth")) > 0


if __name__ == "__main__":
    sys.exit(main())
