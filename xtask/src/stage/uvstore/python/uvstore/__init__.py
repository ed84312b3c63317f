"""A libuv TCPStore for a torch that was built without it.

Every Python start reads this file, so it is short: it waits until `torch.distributed` is imported. What is done
then is in `hook.py`.
"""

import sys

__version__ = "VERSION"


class _Watch:
    """A finder that finds nothing, and hands `torch.distributed` to the hook."""

    busy = False

    def find_spec(self, name, path=None, target=None):
        if name != "torch.distributed" or self.busy:
            return None
        self.busy = True
        try:
            import importlib.util

            spec = importlib.util.find_spec(name)
            if spec is not None:
                from uvstore import hook

                hook.attach(spec)
            return spec
        finally:
            self.busy = False


def watch():
    """Begins to wait, once in a process, unless UVSTORE=0."""
    import os

    if os.environ.get("UVSTORE") != "0" and not any(isinstance(f, _Watch) for f in sys.meta_path):
        sys.meta_path.insert(0, _Watch())
