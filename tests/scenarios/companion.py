"""Is this package importable beside this torch? Prints one line of JSON.

usage: companion.py PACKAGE LACKS
"""

import importlib
import json
import sys
from importlib.metadata import version

import torch

module = importlib.import_module(sys.argv[1].replace("-", "_"))
print(json.dumps({"version": version(sys.argv[1]), "torch": torch.__version__, "module": module.__name__}))
