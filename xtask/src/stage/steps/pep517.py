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


def link_and_pack_nothing():
    """Takes two of setuptools' passes over all files away, copying and packing, and a line of log for
    each file in each pass."""
    import logging
    import shutil

    from setuptools.command import bdist_wheel, install_lib

    def link(source, target):
        try:
            os.link(source, target)
        except OSError:
            shutil.copy2(source, target)

    def copy_tree(self, infile, outfile, *rest):
        shutil.copytree(infile, outfile, copy_function=link, dirs_exist_ok=True)
        return [os.path.join(folder, name) for folder, _, names in os.walk(outfile) for name in names]

    logging.disable(logging.INFO)
    install_lib.install_lib.copy_tree = copy_tree
    bdist_wheel.WheelFile.write_files = lambda self, folder: None


def cmake_settings():
    """Where scikit-build-core builds, and how. Switches reach CMake by the toolchain file that the
    environment names, as with any other backend."""
    return {"build-dir": "build", "cmake.build-type": os.environ["CMAKE_BUILD_TYPE"]}


if backend_name == "setuptools" and what == "configure":
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
elif what == "configure":
    # There is no hook that configures only: build the target that lists the targets, install a
    # component that nothing belongs to, and leave the wheel of what is then there where it falls.
    nothing = {"build.targets": "help", "install.components": "torchmill-nothing"}
    backend.build_wheel(os.environ["TMPDIR"], {**cmake_settings(), **nothing})
elif backend_name == "setuptools":
    # The wheel is packed from the tree that setuptools leaves, deterministically and on all cores: what
    # setuptools itself would pack stays empty, and files go from its one scratch folder to the other as
    # links.
    link_and_pack_nothing()
    options = ["--compression=stored", "--keep-temp", f"--bdist-dir={rest[0]}/tree"]
    print("wheel:", backend.build_wheel(rest[0], {"--build-option": options}))
else:
    print("wheel:", backend.build_wheel(rest[0], cmake_settings()))
