"""Which ways to make a store end with the known error, in the torch of this Python, which has no libuv: one JSON object."""
import json
import os
from datetime import timedelta

import torch.distributed as dist
from torch.distributed.elastic.rendezvous import RendezvousParameters
from torch.distributed.elastic.rendezvous import c10d_rendezvous_backend as backend
from torch.distributed.elastic.rendezvous import static_tcp_rendezvous as static
from torch.distributed.rendezvous import rendezvous

LIMIT = timedelta(seconds=20)
port = 29600


def crashes(make, **environment):
    global port
    port += 1
    kept = dict(os.environ)
    os.environ.pop("USE_LIBUV", None)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK="0", WORLD_SIZE="1", **environment)
    try:
        make()
    except Exception as e:
        if "use_libuv was requested" not in f"{e} {e.__cause__}":
            raise
        return True
    finally:
        os.environ.clear()
        os.environ.update(kept)
    return False


def url(text):
    return lambda: next(rendezvous(text.replace("PORT", str(port)), 0, 1, timeout=LIMIT))


def parameters(kind):
    return RendezvousParameters(kind, f"127.0.0.1:{port}", "r", 1, 1, rank=0, timeout=20, is_host="true")


AGENT = dict(TORCHELASTIC_USE_AGENT_STORE="True", TORCHELASTIC_RESTART_COUNT="0")
print(
    json.dumps(
        {
            "env": crashes(url("env://")),
            "env USE_LIBUV=0": crashes(url("env://"), USE_LIBUV="0"),
            "env url": crashes(url("env://?use_libuv=False")),
            "tcp": crashes(url("tcp://127.0.0.1:PORT")),
            "tcp url": crashes(url("tcp://127.0.0.1:PORT?use_libuv=0")),
            "worker": crashes(url("env://"), **AGENT),
            "worker USE_LIBUV=0": crashes(url("env://"), USE_LIBUV="0", **AGENT),
            "worker url": crashes(url("env://?use_libuv=0"), **AGENT),
            "static USE_LIBUV=0": crashes(
                lambda: static.create_rdzv_handler(parameters("static")).next_rendezvous(), USE_LIBUV="0"
            ),
            "c10d USE_LIBUV=0": crashes(lambda: backend._create_tcp_store(parameters("c10d")), USE_LIBUV="0"),
            "own call USE_LIBUV=0": crashes(lambda: dist.TCPStore("127.0.0.1", 0, 1, True, LIMIT), USE_LIBUV="0"),
        }
    )
)
