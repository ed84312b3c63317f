"""Each way to start ranks that this Python has, with nothing set, on a torch without libuv and with uvstore installed.

    python3 uvstore_launchers.py [--only PART] [--ranks 2,64,256]

Prints a Markdown table: what was started, how many ranks had the right sum, which servers the hook started and how
soon they were ready, and how long it took. A launcher that is not installed is left out. UVSTORE=require: a store that
was not served ends the job. With UVSTORE=force in the environment, a torch that has libuv is served too.
"""

import argparse
import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time

# What a rank says that had the right sum, and rank 0 for all.
RIGHT = r'rank-right|"scenario": "(?:many_ranks|elastic)"|Process rank: [0-9]+, world size: 2'
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


# LLaMA-Factory's launcher starts torchrun on its own training code: a model of a few thousand weights, two sentences.
TRAINING = {"stage": "sft", "do_train": True, "finetuning_type": "full", "template": "empty", "dataset": "two",
            "cutoff_len": 16, "max_steps": 2, "per_device_train_batch_size": 1, "report_to": "none", "use_cpu": True,
            "ddp_backend": "gloo", "save_strategy": "no", "overwrite_cache": True, "ddp_timeout": 120}


def llamafactory_files(folder):
    """A model, a data set and what is to be done with them, in `folder`. Returns the path of the last."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    model, data = os.path.join(folder, "model"), os.path.join(folder, "data")
    words = {w: i for i, w in enumerate(["<unk>", "<s>", "</s>", "one", "two", "three", "four"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>",
                            pad_token="</s>").save_pretrained(model)
    LlamaForCausalLM(LlamaConfig(vocab_size=len(words), hidden_size=16, intermediate_size=32, num_hidden_layers=1,
                                 num_attention_heads=2, num_key_value_heads=2)).save_pretrained(model)
    os.makedirs(data)
    rows = [{"instruction": "one", "input": "", "output": "two"}, {"instruction": "three", "input": "", "output": "four"}]
    for name, value in (("two.json", rows), ("dataset_info.json", {"two": {"file_name": "two.json"}})):
        with open(os.path.join(data, name), "w") as file:
            json.dump(value, file)
    training = dict(TRAINING, model_name_or_path=model, dataset_dir=data, output_dir=os.path.join(folder, "out"))
    path = os.path.join(folder, "train.yaml")  # which JSON is, too
    with open(path, "w") as file:
        json.dump(training, file)
    return path


def llamafactory_main():
    with tempfile.TemporaryDirectory() as folder:
        env = dict(os.environ, FORCE_TORCHRUN="1", NPROC_PER_NODE="2", DISABLE_VERSION_CHECK="1",
                   PATH=os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"])
        sys.exit(subprocess.call([sys.executable, "-m", "llamafactory.cli", "train", llamafactory_files(folder)], env=env))


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return str(s.getsockname()[1])


def cases(ranks):
    """Name, package that it needs, command lines that run at one time, how many ranks are right."""
    python, me = sys.executable, os.path.abspath(__file__)
    torchrun = [python, "-m", "torch.distributed.run"]
    rank = [me, "--rank"]
    p = [free_port() for _ in range(10)]
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
    # Each life has names of its own in the store, so that nobody reads the address of a rank that died.
    elastic = ["--max-restarts", "2", "--nproc-per-node", "2"]
    lives = [os.path.join(HERE, "elastic.py")]
    yield "the same with names for each life", None, [torchrun + elastic + ["--master-port", p[8]] + lives], 1
    yield "the same, c10d", None, [
        torchrun + elastic + ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:" + p[9]] + lives], 1
    accelerate = [python, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2",
                  "--mixed_precision", "no", "--dynamo_backend", "no"]
    yield "`accelerate launch`", "accelerate", [accelerate + ["--num_machines", "1", "--main_process_port", p[5]] + rank], 2
    yield "`accelerate launch`, two machines", "accelerate", [
        accelerate + ["--num_machines", "2", "--machine_rank", str(i), "--main_process_ip", "127.0.0.1",
                      "--main_process_port", p[6], "--rdzv_backend", "static"] + rank for i in (0, 1)], 2
    yield "`deepspeed`", "deepspeed", [
        [python, "-m", "deepspeed.launcher.runner", "--num_accelerators", "2", "--master_port", p[7]] + rank], 2
    yield "Lightning's `Trainer(strategy=\"ddp\")`", "lightning", [[python, me, "--lightning"]], 2
    yield "`llamafactory-cli train`, which starts `torchrun`", "llamafactory", [[python, me, "--llamafactory"]], 2
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
        right = len(re.findall(RIGHT, said))
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
    elif "--llamafactory" in sys.argv:
        llamafactory_main()
    else:
        sys.exit(main())
