"""The hook for those who install nothing: `uvstore run` puts this folder first in PYTHONPATH."""

import importlib.machinery
import importlib.util
import os
import sys

import uvstore

_HERE = os.path.dirname(os.path.abspath(__file__))


def _say_that_it_ran():
    try:
        open(os.path.join(_HERE, "ran"), "w").close()
    except OSError:
        pass


def _next_one():
    """The sitecustomize that this one stands before."""
    others = [p for p in sys.path if os.path.abspath(p or os.curdir) != _HERE]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", others)
    if spec is not None and spec.loader is not None:
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)


_say_that_it_ran()
uvstore.watch()
_next_one()
