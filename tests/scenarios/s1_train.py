"""The shape of GPT-SoVITS' s1_train.py: a Lightning Trainer with DDPStrategy; with the
`USE_LIBUV=0` workaround removed from the environment."""

import json
import os
import tempfile

import torch
import torch.distributed as dist
from lightning.pytorch import LightningDataModule, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import DDPStrategy
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Text2Semantic(LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Embedding(32, 16), nn.Flatten(), nn.Linear(16 * 8, 32))

    def training_step(self, batch, _):
        x, y = batch
        loss = nn.functional.cross_entropy(self.net(x), y)
        self.log("loss", loss, sync_dist=True)
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 1e-2)


class Data(LightningDataModule):
    def train_dataloader(self):
        x = torch.randint(0, 32, (64, 8))
        return DataLoader(TensorDataset(x, x[:, 0]), batch_size=8)


class Report(Callback):
    def on_train_end(self, trainer, module):
        store = dist.distributed_c10d._get_default_store()
        while hasattr(store, "underlying_store"):
            store = store.underlying_store
        libuv = bool(getattr(store, "libuvBackend", False))
        assert libuv, "Lightning's process group does not run on libuv"
        if trainer.is_global_zero:
            print(json.dumps({"scenario": "s1_train", "ranks": trainer.world_size, "device": module.device.type,
                              "libuv": libuv, "steps": trainer.global_step}), flush=True)


def main():
    os.environ["MASTER_ADDR"] = "localhost"
    seed_everything(1234, verbose=False)
    # As its author does it: all GPUs where there are any, and NCCL but on Windows.
    cuda = torch.cuda.is_available()
    backend = "nccl" if cuda and os.name != "nt" else "gloo"
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            accelerator="gpu" if cuda else "cpu",
            devices=-1 if cuda else 2,
            max_epochs=1,
            strategy=DDPStrategy(process_group_backend=backend),
            default_root_dir=folder,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[Report()],
        )
        trainer.fit(Text2Semantic(), datamodule=Data())


if __name__ == "__main__":
    main()
