"""Makes a torch of a few modules in the folder that is its argument, whose TCPStore has no libuv: it refuses, listens
and speaks to a server as torch's own does. What it is asked is what the hook's tests look at."""

import os
import sys

BINDING = '''
import datetime, socket, struct, sys, types

class DistStoreError(RuntimeError):
    pass

class TCPStore:
    def __init__(self, host_name, port, world_size=None, is_master=False,
                 timeout=datetime.timedelta(seconds=300), wait_for_workers=True, multi_tenant=False,
                 master_listen_fd=None, use_libuv=True):
        if use_libuv:
            raise DistStoreError("use_libuv was requested but PyTorch was built without libuv support, "
                                 "run with USE_LIBUV=0 to disable it.")
        self.host, self.port, self.is_master = host_name, port, is_master
        if is_master:
            self._listener = socket.socket()
            self._listener.bind(("", port))
            self._listener.listen()
            self.port = self._listener.getsockname()[1]
            return
        self._socket = socket.create_connection((host_name, port), timeout=timeout.total_seconds())
        self._socket.sendall(struct.pack("=BI", 0, 0x3C85F7CE))
        if wait_for_workers and world_size is not None:
            self._add("init/", 1)

    def _add(self, key, amount):
        self._socket.sendall(struct.pack("=BQ", 4, len(key)) + key.encode() + struct.pack("=q", amount))
        return struct.unpack("=q", self._socket.recv(8, socket.MSG_WAITALL))[0]

    def add(self, key, amount):
        return self._add("/" + key, amount)

    def delete_key(self, key):
        key = "/" + key
        self._socket.sendall(struct.pack("=BQ", 8, len(key)) + key.encode())
        return self._socket.recv(8, socket.MSG_WAITALL) != bytes(8)

def _c10d_init():
    global _distributed_c10d
    name = __name__ + "._distributed_c10d"
    assert name not in sys.modules, "twice"
    _distributed_c10d = sys.modules[name] = types.ModuleType(name)
    _distributed_c10d.TCPStore, _distributed_c10d.DistStoreError = TCPStore, DistStoreError
    return True
'''

PACKAGE = '''
import torch._C
assert torch._C._c10d_init()
from torch._C._distributed_c10d import TCPStore
'''

for name, text in (("__init__", ""), ("_C/__init__", BINDING), ("distributed/__init__", PACKAGE)):
    path = os.path.join(sys.argv[1], "torch", name + ".py")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(text)
