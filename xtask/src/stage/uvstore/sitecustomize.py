"""Turns the stores of a stock torch into clients of the server that `uvstore` runs.

Python imports this at start-up, because `uvstore run` puts its folder first in PYTHONPATH. Nothing that is
installed is changed. A TCPStore that would be a server at the address in UVSTORE becomes a client of it; no
TCPStore asks for libuv in a torch that has none.
"""

import importlib.abc
import importlib.machinery
import os
import sys


def _clients_only(binding):
    """Puts a TCPStore into torch's binding that knows the server is there already."""
    stock = binding.TCPStore
    host, _, port = os.environ["UVSTORE"].rpartition(":")
    names = ("host_name", "port", "world_size", "is_master")

    class TCPStore(stock):
        def __init__(self, *args, **kwargs):
            known = dict(zip(names, args))
            rest = args[len(names):]
            # Whoever names a later argument by its place gets it by its place.
            for name in names:
                if name in kwargs:
                    known[name] = kwargs.pop(name)
            served = str(known.get("port")) == port
            if served:
                known["is_master"] = False
                kwargs.pop("master_listen_fd", None)
            kwargs["use_libuv"] = False
            if rest:
                # timeout, wait_for_workers, multi_tenant, master_listen_fd, use_libuv
                later = ("timeout", "wait_for_workers", "multi_tenant", "master_listen_fd")
                for name, value in zip(later, rest):
                    if not (served and name == "master_listen_fd"):
                        kwargs.setdefault(name, value)
            super().__init__(**known, **kwargs)

    TCPStore.__module__, TCPStore.__doc__ = stock.__module__, stock.__doc__
    binding.TCPStore = TCPStore


class _Finder(importlib.abc.MetaPathFinder):
    """Waits for `torch.distributed`, and sees to its binding before that package takes from it."""

    def find_spec(self, name, path, target=None):
        if name != "torch.distributed":
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module):
            import torch._C

            # The binding is made by a function that the package calls first, and that runs once.
            make = getattr(torch._C, "_c10d_init", None)
            if make is not None:

                def make_and_see_to_it():
                    torch._C._c10d_init = make
                    made = make()
                    binding = getattr(torch._C, "_distributed_c10d", None)
                    if hasattr(binding, "TCPStore"):
                        _clients_only(binding)
                    return made

                torch._C._c10d_init = make_and_see_to_it
            execute(module)

        spec.loader.exec_module = exec_module
        return spec


if os.environ.get("UVSTORE"):
    sys.meta_path.insert(0, _Finder())


def _next_one():
    """The sitecustomize that this one stands before."""
    here = os.path.dirname(os.path.abspath(__file__))
    others = [p for p in sys.path if os.path.abspath(p or os.curdir) != here]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", others)
    if spec is not None and spec.loader is not None:
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)


import importlib.util  # noqa: E402

_next_one()
