"""Runs the Python files of a stock torch, of one folder, with a TCPStore that only notes how it was called.

    python3 who_makes_the_store.py FOLDER PLATFORM

FOLDER holds torch/distributed/… of a wheel; nothing compiled is needed. PLATFORM is what sys.platform says while a call
is made. Prints, as JSON, what each way to make a store asks for: true, false, or "default" where the call does not say.
"""
import ast
import ctypes
import importlib
import importlib.machinery
import importlib.util
import inspect
import json
import logging
import multiprocessing
import os
import socket
import subprocess
import sys
import tempfile
import types
import urllib.request
import uuid
from unittest import mock

FOLDER, PLATFORM = sys.argv[1], sys.argv[2]
# Imported before the platform is another one.
LOADED = (ctypes, logging, multiprocessing, socket, subprocess, tempfile, urllib.request, uuid)
calls = []


class Anything(types.ModuleType):
    """A module that has any name."""

    __path__ = []

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        nothing = lambda *_, **__: None
        body = {
            "__init__": nothing,
            "__getattr__": lambda _, __: nothing,
            "__class_getitem__": classmethod(lambda c, _: c),
        }
        value = type(name, (), body)
        setattr(self, name, value)
        return value


class Finder:
    """The files of the folder; of the rest of torch, a stand-in."""

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] != "torch":
            return None
        place = os.path.join(FOLDER, *name.split("."))
        if name not in ("torch", "torch.distributed"):
            for file, package in ((place + ".py", None), (os.path.join(place, "__init__.py"), [place])):
                if os.path.exists(file):
                    return importlib.util.spec_from_file_location(name, file, submodule_search_locations=package)
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec):
        return Anything(spec.name)

    def exec_module(self, module):
        pass


class TCPStore:
    NAMES = "host_name port world_size is_master timeout wait_for_workers multi_tenant master_listen_fd use_libuv"
    port = 1

    def __init__(self, *args, **kwargs):
        calls.append(dict(zip(self.NAMES.split(), args), **kwargs).get("use_libuv", "default"))

    def __getattr__(self, name):
        return lambda *_, **__: b"x"


sys.meta_path.insert(0, Finder())
import torch.distributed as dist  # noqa: E402

dist.TCPStore = TCPStore
for other in ("PrefixStore", "FileStore", "Store", "HashStore"):
    body = {"__init__": lambda s, *_, **__: None, "__getattr__": lambda s, n: (lambda *_, **__: b"x")}
    setattr(dist, other, type(other, (), body))
dist.is_available = lambda: True


def load(name):
    return importlib.import_module("torch.distributed." + name)


rendezvous = load("rendezvous")
api = load("elastic.rendezvous.api")
static = load("elastic.rendezvous.static_tcp_rendezvous")
backend = load("elastic.rendezvous.c10d_rendezvous_backend")
dynamic = load("elastic.rendezvous.dynamic_rendezvous")


def made(call, **environment):
    """What the last store that `call` made asked for; "none" where it made none."""
    calls.clear()
    os.environ.pop("USE_LIBUV", None)
    with mock.patch.dict(os.environ, environment), mock.patch.object(sys, "platform", PLATFORM):
        call()
    return calls[-1] if calls else "none"


def url(text, **environment):
    where = dict(MASTER_ADDR="127.0.0.1", MASTER_PORT="1234", **environment)
    return made(lambda: next(rendezvous.rendezvous(text, 0, 1)), **where)


def chosen(text):
    return {
        "default": url(text),
        "USE_LIBUV=0": url(text, USE_LIBUV="0"),
        "USE_LIBUV=1": url(text, USE_LIBUV="1"),
        "url=False": url(text + "?use_libuv=False"),
        "url=1": url(text + "?use_libuv=1"),
    }


def parameters(**more):
    where = dict(backend="static", endpoint="127.0.0.1:1234", run_id="r", min_nodes=1, max_nodes=1, rank=0)
    return api.RendezvousParameters(**where, **more)


def start_static():
    static.create_rdzv_handler(parameters(timeout=5)).next_rendezvous()


def start_c10d(**more):
    backend._create_tcp_store(parameters(**more))


def start_dynamic():
    create = getattr(dynamic.DynamicRendezvousHandler, "_create_tcp_store_server", None)
    if create is None:
        return
    info = types.SimpleNamespace(master_addr="127.0.0.1", master_port=1)
    arguments = [info] if len(inspect.signature(create).parameters) == 2 else ["127.0.0.1", 1]
    create(mock.Mock(), *arguments)


def shares():
    """Whose workers use the agent's store."""
    if not hasattr(api.RendezvousHandler, "use_agent_store"):
        source = os.path.join(FOLDER, "torch/distributed/elastic/agent/server/local_elastic_agent.py")
        assert 'get_backend() == "static"' in open(source).read()
        return ["static"]
    handlers = {"static": static.StaticTCPRendezvous, "c10d": dynamic.DynamicRendezvousHandler}
    return [name for name, handler in handlers.items() if handler.use_agent_store.fget(mock.Mock())]


def lines():
    """Where in rendezvous.py the calls stand."""
    found = {}
    tree = ast.parse(open(os.path.join(FOLDER, "torch/distributed/rendezvous.py")).read())
    for function in (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)):
        for call in (n for n in ast.walk(function) if isinstance(n, ast.Call)):
            name = getattr(call.func, "id", "")
            if name == "TCPStore":
                own = any(k.arg == "use_libuv" for k in call.keywords)
                found["own" if own else "agent"] = call.lineno
            elif name == "_create_c10d_store":
                found["env" if "env" in function.name else "tcp"] = call.lineno
    return found


AGENT = dict(TORCHELASTIC_USE_AGENT_STORE="True", TORCHELASTIC_RESTART_COUNT="0")
print(
    json.dumps(
        {
            "env": chosen("env://"),
            "tcp": chosen("tcp://127.0.0.1:1234"),
            "worker": [url("env://", **AGENT), url("env://", USE_LIBUV="0", **AGENT), url("env://?use_libuv=0", **AGENT)],
            "static": [made(start_static), made(start_static, USE_LIBUV="0")],
            "c10d": [made(start_c10d), made(start_c10d, USE_LIBUV="0")],
            "c10d_conf": made(lambda: start_c10d(use_libuv="1")),
            "dynamic": [made(start_dynamic), made(start_dynamic, USE_LIBUV="0")],
            "shares": shares(),
            "lines": lines(),
        }
    )
)
