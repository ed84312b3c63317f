"""Calls PEP 517 hooks of the tree in the current folder, without isolation.

usage: pep517.py BACKEND configure
       pep517.py BACKEND wheel FOLDER
"""

import importlib
import os
import sys

backend_name, what, *rest = sys.argv[1:]
# The backend sees a plain command line, and the tree's own modules, as pip would show them.
sys.argv = ["setup.py"]
sys.path.insert(0, os.getcwd())

if backend_name == "setuptools":
    backend = importlib.import_module("setuptools.build_meta").__legacy__
else:
    backend = importlib.import_module("scikit_build_core.build")

if what == "configure":
    if backend_name == "setuptools":
        # setup.py leaves with status 0 once CMake has run. setuptools takes that for the end of a
        # build and then misses the wheel; or, in older versions, lets the exit through.
        try:
            backend.build_wheel(os.environ["TMPDIR"], {"--build-option": ["--cmake-only"]})
        except SystemExit as e:
            sys.exit(e.code)
        except ValueError:
            if not os.path.exists("build/build.ninja"):
                raise
            sys.exit(0)
        sys.exit("setup.py ignored --cmake-only")
    sys.exit("configuring without building is not known for this backend")
else:
    settings = {}
    if backend_name == "setuptools":
        # The wheel is packed again, deterministically and on all cores: do not compress twice.
        settings = {"--build-option": ["--compression=stored"]}
    print("wheel:", backend.build_wheel(rest[0], settings))
