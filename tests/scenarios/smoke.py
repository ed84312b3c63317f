"""What is this torch? Prints one line of JSON; fails if its TCPStore does not run on libuv."""

import json
import os
from datetime import timedelta

import torch
import torch.distributed as dist

store = dist.TCPStore("127.0.0.1", 0, None, True, timedelta(seconds=30), wait_for_workers=False, use_libuv=True)
client = dist.TCPStore("127.0.0.1", store.port, None, False, timedelta(seconds=30), use_libuv=True)
client.set("key", "value")
assert store.get("key") == b"value"
assert client.add("n", 2) == 2 and store.add("n", 40) == 42
client.wait(["key", "n"], timedelta(seconds=5))
assert store.libuvBackend and client.libuvBackend, "the store does not run on libuv"

torch.manual_seed(0)
a, b = torch.randn(64, 48), torch.randn(48, 32)
torch.testing.assert_close(a @ b, (a.double() @ b.double()).float())
solved = torch.linalg.solve(torch.eye(8) * 3, torch.ones(8))
torch.testing.assert_close(solved, torch.full((8,), 1 / 3))
torch.testing.assert_close(torch.fft.irfft(torch.fft.rfft(torch.arange(16.0))), torch.arange(16.0))
x = torch.randn(2, 3, 16, 16, requires_grad=True)
torch.nn.functional.conv2d(x, torch.randn(4, 3, 3, 3)).sum().backward()
assert x.grad is not None and x.grad.abs().sum() > 0

print(json.dumps({
    "version": torch.__version__,
    "git_version": torch.version.git_version,
    "libuv": store.libuvBackend,
    "gloo": dist.is_gloo_available(),
    "nccl": dist.is_nccl_available(),
    "cuda": torch.version.cuda,
    "gpus": torch.cuda.device_count() if torch.version.cuda else 0,
    "mkl": torch.backends.mkl.is_available(),
    "mkldnn": torch.backends.mkldnn.is_available(),
    "openmp": torch.backends.openmp.is_available(),
    "rpc": torch.distributed.rpc.is_available(),
    "cxx11_abi": torch._C._GLIBCXX_USE_CXX11_ABI,
    "location": os.path.dirname(torch.__file__),
}))
