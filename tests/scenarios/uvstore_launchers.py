"""Each way to start ranks that this Python has, with nothing set, on a torch without libuv and with uvstore installed.

    python3 uvstore_launchers.py [--only PART] [--ranks 2,64,256]

Prints a Markdown table: what was started, how many ranks had the right sum, which servers the hook started and how
soon they were ready, and how long it took. A launcher that is not installed is left out. UVSTORE=require: a store that
was not served ends the job. With UVSTORE=force in the environment, a torch that has libuv is served too.
"""

import argparse
import importlib.util
import os
import re
import socket
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))


def rank_main(init_method=None, rank=None, world=None, die=False):
    import torch
    import torch.distributed as dist

    if init_method:
        dist.init_process_group("gloo", init_method=init_method, rank=rank, world_size=world)
    else:
        dist.init_process_group("gloo")
    if die and dist.get_rank() == 1 and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        os._exit(9)
    t = torch.full((4,), float(dist.get_rank() + 1))
    dist.all_reduce(t)
    n = dist.get_world_size()
    assert t[0].item() == n * (n + 1) / 2, "the all-reduce is wrong"
    dist.barrier()
    # One write: lines of several ranks must not mix.
    os.write(1, b"rank-right %d of %d\n" % (dist.get_rank(), n))
    dist.destroy_process_group()


def spawned(rank, init_method):
    rank_main(init_method, rank, 2)


def lightning_main():
    import lightning
    from lightning.pytorch.demos.boring_classes import BoringModel

    trainer = lightning.Trainer(accelerator="cpu", devices=2, strategy="ddp", max_steps=2, logger=False,
                                enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
                                limit_val_batches=0)
    trainer.fit(BoringModel())
    os.write(1, b"rank-right %d of %d\n" % (trainer.global_rank, trainer.world_size))


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return str(s.getsockname()[1])


def cases(ranks):
    """Name, package that it needs, command lines that run at one time, how many ranks are right."""
    python, me = sys.executable, os.path.abspath(__file__)
    torchrun = [python, "-m", "torch.distributed.run"]
    rank = [me, "--rank"]
    p = [free_port() for _ in range(8)]
    yield "`torch.multiprocessing.spawn`, `tcp://`", None, [[python, me, "--spawn", "tcp://127.0.0.1:" + p[0]]], 2
    yield "`torchrun`, static", None, [torchrun + ["--nproc-per-node", "2", "--master-port", p[1]] + rank], 2
    yield "`torchrun --standalone`", None, [torchrun + ["--standalone", "--nproc-per-node", "2"] + rank], 2
    yield "`torchrun`, static, two nodes", None, [
        torchrun + ["--nnodes", "2", "--node-rank", str(i), "--master-addr", "127.0.0.1", "--master-port", p[2],
                    "--nproc-per-node", "1"] + rank for i in (0, 1)], 2
    yield "`torchrun`, c10d, two nodes", None, [
        torchrun + ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:" + p[3], "--nnodes", "2",
                    "--nproc-per-node", "1"] + rank for _ in (0, 1)], 2
    yield "`torchrun --max-restarts 2`, static, a rank that dies once", None, [
        torchrun + ["--max-restarts", "2", "--nproc-per-node", "2", "--master-port", p[4]] + rank + ["--die"]], 2
    accelerate = [python, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2",
                  "--mixed_precision", "no", "--dynamo_backend", "no"]
    yield "`accelerate launch`", "accelerate", [accelerate + ["--num_machines", "1", "--main_process_port", p[5]] + rank], 2
    yield "`accelerate launch`, two machines", "accelerate", [
        accelerate + ["--num_machines", "2", "--machine_rank", str(i), "--main_process_ip", "127.0.0.1",
                      "--main_process_port", p[6], "--rdzv_backend", "static"] + rank for i in (0, 1)], 2
    yield "`deepspeed`", "deepspeed", [
        [python, "-m", "deepspeed.launcher.runner", "--num_accelerators", "2", "--master_port", p[7]] + rank], 2
    yield "Lightning's `Trainer(strategy=\"ddp\")`", "lightning", [[python, me, "--lightning"]], 2
    for n in ranks:
        yield "`env://`, %d forked ranks" % n, None, [[python, os.path.join(HERE, "many_ranks.py"), str(n)]], 1


def run(commands, log):
    env = dict(os.environ, UVSTORE_LOG=log, OMP_NUM_THREADS="1", DS_ACCELERATOR="cpu", PYTHONWARNINGS="ignore")
    env.setdefault("UVSTORE", "require")
    started = time.monotonic()
    with tempfile.TemporaryFile() as out:
        jobs = [subprocess.Popen(c, env=env, stdout=out, stderr=subprocess.STDOUT) for c in commands]
        try:
            codes = [j.wait(timeout=400) for j in jobs]
        except subprocess.TimeoutExpired:
            for j in jobs:
                j.terminate()
            codes = ["stopped after 400 s"]
        seconds = time.monotonic() - started
        out.seek(0)
        return codes, seconds, out.read().decode(errors="replace")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="")
    parser.add_argument("--ranks", default="2,64,256")
    args = parser.parse_args()
    import torch

    print("Python %s, torch %s, load %.1f:\n" % (sys.version.split()[0], torch.__version__, os.getloadavg()[0]))
    print("| started | ranks right | servers | ready after, ms | seconds |\n|---|---|---|---|---|", flush=True)
    failed = 0
    for name, package, commands, expected in cases([int(n) for n in args.ranks.split(",") if n]):
        if args.only not in name or (package and importlib.util.find_spec(package) is None):
            continue
        log = tempfile.mktemp()
        codes, seconds, said = run(commands, log)
        right = len(re.findall(r"rank-right|\"scenario\": \"many_ranks\"", said))
        ready = re.findall(r"ready after ([0-9.]+) ms", open(log).read()) if os.path.exists(log) else []
        if right != expected or any(codes):
            failed += 1
            print(said[-3000:], file=sys.stderr)
        print("| %s | %s of %s%s | %d | %s | %.1f |" % (
            name, right, expected, "" if not any(codes) else " (exit %s)" % codes, len(ready), ", ".join(ready), seconds),
            flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    if "--rank" in sys.argv:
        rank_main(die="--die" in sys.argv)
    elif "--spawn" in sys.argv:
        import torch.multiprocessing

        torch.multiprocessing.spawn(spawned, args=(sys.argv[-1],), nprocs=2)
    elif "--lightning" in sys.argv:
        lightning_main()
    else:
        sys.exit(main())
