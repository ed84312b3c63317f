"""What a torch with CUDA has to do on a GPU: its libraries compute what the processor computes, every kernel of
attention agrees with the plain one, a model learns in bfloat16, the profiler sees kernels, and NCCL adds up.

Prints one line of JSON: what was right, what this build or card does not have, and times. Fails at the first thing that
is wrong.
"""

import json
import os
import socket
import time

import torch
import torch.distributed as dist
from torch import nn
from torch.backends import cuda
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

GPU = torch.device("cuda", 0)
KERNELS = {"flash": (SDPBackend.FLASH_ATTENTION, cuda.can_use_flash_attention),
           "efficient": (SDPBackend.EFFICIENT_ATTENTION, cuda.can_use_efficient_attention),
           "cudnn": (SDPBackend.CUDNN_ATTENTION, cuda.can_use_cudnn_attention)}


def milliseconds(call, times=20):
    """Median of single calls, by the GPU's own clock."""
    call()
    torch.cuda.synchronize()
    taken = []
    for _ in range(times):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        end.synchronize()
        taken.append(start.elapsed_time(end))
    return sorted(taken)[len(taken) // 2]


def libraries():
    """One operator of each of CUDA's libraries, against the processor."""
    torch.manual_seed(1)
    a, b = torch.randn(192, 128, dtype=torch.float64), torch.randn(128, 160, dtype=torch.float64)
    square = torch.randn(64, 64, dtype=torch.float64) + 64 * torch.eye(64, dtype=torch.float64)
    image, weight = torch.randn(2, 8, 24, 24), torch.randn(16, 8, 3, 3)
    sparse = (a * (a.abs() > 1)).to_sparse_csr()
    pairs = {
        "cublas": (lambda to: to(a) @ to(b)),
        "cudnn": (lambda to: nn.functional.conv2d(to(image), to(weight), padding=1)),
        "cufft": (lambda to: torch.fft.irfft2(torch.fft.rfft2(to(a)))),
        "cusolver": (lambda to: torch.linalg.solve(to(square), to(b[:64]))),
        "cusparse": (lambda to: to(sparse) @ to(b)),
        "cub": (lambda to: to(a).flatten().sort().values),
    }
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    for name, call in pairs.items():
        here, there = call(lambda x: x), call(lambda x: x.to(GPU))
        assert there.is_cuda, name
        torch.testing.assert_close(there.cpu(), here, rtol=1e-4, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")
    drawn = torch.randn(1 << 20, device=GPU)
    assert abs(drawn.mean().item()) < 0.01 and abs(drawn.std().item() - 1) < 0.01, "curand"
    return [*pairs, "curand"]


def attention(lacks):
    """Every kernel that build and card have, forward and backward, against the plain one in float32."""
    torch.manual_seed(2)
    shape = (2, 8, 512, 64)
    exact = [torch.randn(shape, device=GPU, requires_grad=True) for _ in range(3)]
    with sdpa_kernel(SDPBackend.MATH):
        wanted = scaled_dot_product_attention(*exact, is_causal=True)
        wanted.sum().backward()
    times = {}
    for name, (kernel, can_use) in KERNELS.items():
        given = [x.detach().to(torch.bfloat16).requires_grad_() for x in exact]
        with sdpa_kernel(kernel):
            if not can_use(cuda.SDPAParams(*given, None, 0.0, True, False)):
                lacks.append(f"{name} attention")
                continue
            out = scaled_dot_product_attention(*given, is_causal=True)
            out.sum().backward()
            for what, ours, theirs in [("output", out, wanted)] + [
                (f"gradient {i}", x.grad, y.grad) for i, (x, y) in enumerate(zip(given, exact))
            ]:
                off = (ours.float() - theirs).abs().max().item()
                assert off < 0.05 * max(1.0, theirs.abs().max().item()), f"{name} attention, {what}: off by {off}"
            times[name] = milliseconds(lambda g=given: scaled_dot_product_attention(*g, is_causal=True))
    return times


def training():
    """A model with convolution, attention and embedding learns, in bfloat16 where that is right."""
    torch.manual_seed(3)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.front = nn.Conv1d(16, 64, 5, padding=2)
            self.block = nn.TransformerEncoderLayer(64, 4, 128, dropout=0.0, batch_first=True)
            self.head = nn.Linear(64, 16)

        def forward(self, x):
            return self.head(self.block(self.front(x).transpose(1, 2))).transpose(1, 2)

    model = Model().to(GPU)
    optim = torch.optim.AdamW(model.parameters(), 3e-3, fused=True)
    x = torch.randn(16, 16, 64, device=GPU)
    losses = []
    for _ in range(30):
        optim.zero_grad()
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss = nn.functional.mse_loss(model(x), x)
        loss.backward()
        optim.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0], f"the loss did not fall: {losses}"
    return {"first_loss": losses[0], "last_loss": losses[-1]}


def profiler(lacks):
    """Kernels as CUPTI sees them: none without it, and no error either."""
    activities = torch.profiler.supported_activities()
    if torch.profiler.ProfilerActivity.CUDA not in activities:
        lacks.append("profiler of kernels")
        return 0
    with torch.profiler.profile(activities=list(activities)) as seen:
        x = torch.randn(256, 256, device=GPU)
        (x @ x).sum().item()
    kernels = [e.name for e in seen.events() if e.device_type == torch.autograd.DeviceType.CUDA]
    assert kernels, "the profiler saw no kernel: Kineto without CUPTI"
    return len(kernels)


def nccl():
    """One rank, NCCL; the store is what the default gives."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK="0", WORLD_SIZE="1")
    torch.cuda.set_device(GPU)
    dist.init_process_group("nccl", init_method="env://", device_id=GPU)
    x = torch.arange(1 << 20, dtype=torch.float32, device=GPU)
    dist.all_reduce(x)
    assert torch.equal(x.cpu(), torch.arange(1 << 20, dtype=torch.float32)), "the all-reduce is wrong"
    store = dist.distributed_c10d._get_default_store()
    while hasattr(store, "underlying_store"):
        store = store.underlying_store
    libuv = bool(getattr(store, "libuvBackend", False))
    dist.destroy_process_group()
    return libuv


def main():
    assert torch.cuda.is_available(), "torch.cuda sees no GPU"
    about = torch.cuda.get_device_properties(GPU)
    began = time.monotonic()
    lacks = []
    right = libraries()
    side = 8192
    a = torch.randn(side, side, device=GPU, dtype=torch.bfloat16)
    product = milliseconds(lambda: a @ a)
    of_attention = attention(lacks)
    learned = training()
    kernels = profiler(lacks)
    libuv = nccl()
    print(json.dumps({
        "scenario": "gpu", "libuv": libuv, "torch": torch.__version__, "cuda": torch.version.cuda, "gpu": about.name,
        "capability": f"{about.major}.{about.minor}", "architectures": torch.cuda.get_arch_list(),
        "cudnn": torch.backends.cudnn.version(), "nccl": ".".join(map(str, torch.cuda.nccl.version())),
        "right": right + [f"attention: {name}" for name in of_attention] + ["training", "nccl"]
        + ["profiler"] * (kernels > 0), "lacks": lacks,
        "matmul_bfloat16_8192_tflops": round(2 * side**3 / product / 1e9, 1),
        "attention_ms": {name: round(taken, 4) for name, taken in of_attention.items()},
        **learned, "kernels_seen": kernels, "seconds": round(time.monotonic() - began, 1),
    }), flush=True)


if __name__ == "__main__":
    main()
