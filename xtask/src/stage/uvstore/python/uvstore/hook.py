"""Serves the stores of a torch whose TCPStore has no libuv.

`TCPStore.__init__` is called as it is first. Only where it answers that this torch was built without libuv does the
hook act: the rank that would be the server starts the program `uvstore` on the address and port that it was asked
for, and becomes a client of it; all others become clients with the same wire protocol, which both stores share. If
anything about that goes wrong, the store is the legacy one, as with `use_libuv=False`, and one warning says so.

UVSTORE=0        nothing is done
UVSTORE=require  what would fall back is an error
UVSTORE=force    a torch that has libuv is served too: for trials
UVSTORE_LOG      `stderr`, or a file: what was done
UVSTORE_LISTEN   `everywhere`: listen on all interfaces, as torch does, though MASTER_ADDR is this machine's loopback
"""

import datetime
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time

_NAMES = (
    "host_name",
    "port",
    "world_size",
    "is_master",
    "timeout",
    "wait_for_workers",
    "multi_tenant",
    "master_listen_fd",
    "use_libuv",
)
# How long a program may take to say that it serves; a virus scanner may look at it first.
_PATIENCE = 20.0
# torch's own, where a store is given none.
_TIMEOUT = datetime.timedelta(seconds=300)
_WITHOUT = "without libuv support"

# Servers that this process started and that may still run, by port.
servers = {}
_lock = threading.RLock()
_warned = False


def _in_child():
    """A child's stores are its own, as its server would be in torch; a lock that another thread held is nobody's."""
    global _lock
    servers.clear()
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


def attach(spec):
    """Sees to the store when the module of `spec`, torch.distributed, has been executed."""
    loader = spec.loader
    execute = getattr(loader, "exec_module", None)
    if execute is None:
        return

    def exec_module(module):
        execute(module)
        if module.__name__ == "torch.distributed":
            loader.__dict__.pop("exec_module", None)
            install()

    try:
        loader.exec_module = exec_module
    except AttributeError:
        _log("torch.distributed comes from %r, which cannot be watched" % (loader,))


def install():
    """Puts the hook before torch's own `TCPStore.__init__`. False where there is none, or a hook already."""
    store = getattr(sys.modules.get("torch._C._distributed_c10d"), "TCPStore", None)
    if store is None:
        _log("this torch has no TCPStore")
        return False
    if hasattr(store.__init__, "uvstore"):
        _log("another hook is here already: uvstore %s" % store.__init__.uvstore)
        return False
    from uvstore import __version__

    stock = store.__init__

    def __init__(self, *args, **kwargs):
        asked = _named(args, kwargs)
        if asked.get("is_master") and _served_by_run(asked):
            # Whatever backend was asked for: the address is taken, by the server that is meant.
            asked.update(is_master=False, use_libuv=False)
            asked.pop("master_listen_fd", None)
            _log("%s:%s is served by `uvstore run`" % (asked["host_name"], asked["port"]))
            return stock(self, **asked)
        if os.environ.get("UVSTORE") != "force" or asked.get("use_libuv", True) is False:
            try:
                return stock(self, *args, **kwargs)
            except RuntimeError as e:
                if _WITHOUT not in str(e):
                    raise
        _make(stock, self, asked)

    __init__.__doc__ = stock.__doc__
    __init__.uvstore = __version__
    store.__init__ = __init__
    _log("uvstore %s watches the stores of %s" % (__version__, sys.executable))
    return True


def _named(args, kwargs):
    asked = dict(zip(_NAMES, args))
    asked.update(kwargs)
    return asked


def _make(stock, store, asked):
    """Makes `store` what `asked` asks for, without libuv in this torch."""
    asked = dict(asked, use_libuv=False)
    where = "%s:%s" % (asked.get("host_name"), asked.get("port"))
    if not asked.get("is_master"):
        _log("a client of %s" % where)
        return stock(store, **asked)
    try:
        with _lock:
            server, holding = _server_for(asked)
    except _Taken as e:
        # Torch's own server meets the same, and says it in the way that its callers expect.
        _log("%s: %s" % (where, e))
        return stock(store, **asked)
    except Exception as e:  # never worse than stock
        return _legacy(stock, store, asked, e)
    try:
        client = dict(asked, is_master=False, port=server.port)
        client.pop("master_listen_fd", None)
        try:
            stock(store, **client)
            # The server lives as long as this connection, which is the store's.
            store.delete_key(server.owner)
        except BaseException:
            if holding is None:
                server.stop()
            raise
    finally:
        if holding is not None:
            holding.close()
    world = asked.get("world_size")
    if asked.get("wait_for_workers", True) and world is not None and world > 1:
        _wait_for_workers(server, world, asked.get("timeout", _TIMEOUT))


def _served_by_run(asked):
    shared = os.environ.get("UVSTORE_SERVER", "")
    return bool(shared) and str(asked.get("port")) == shared.rpartition(":")[2]


def _legacy(stock, store, asked, why):
    global _warned
    where = "%s:%s" % (asked.get("host_name"), asked.get("port"))
    text = "uvstore cannot serve %s: %s" % (where, why)
    if os.environ.get("UVSTORE") == "require":
        raise RuntimeError(text + " (UVSTORE=require forbids the legacy store)") from why
    _log(text)
    if not _warned:
        _warned = True
        import warnings

        warnings.warn(
            text + ". The store is torch's legacy one, as with use_libuv=False. "
            "UVSTORE=0 turns uvstore off, UVSTORE_LOG=stderr tells more.",
            RuntimeWarning,
            stacklevel=4,
        )
    stock(store, **asked)


class _Taken(Exception):
    """Somebody else listens there."""


class _Server:
    """A running program."""

    def __init__(self, process, said, host):
        self.process, self.host = process, host
        self.port, self.pid, self.owner = said["port"], said["pid"], said["owner"]

    def is_alive(self):
        """Its end of the pipe closes with it."""
        if os.name == "nt":
            return self.process.poll() is None
        import select

        return not select.select([self.process.stdout], [], [], 0)[0]

    def stop(self):
        if self.is_alive():
            _log("stopping the server on port %d" % self.port)
            self.process.kill() if os.name == "nt" else os.kill(self.pid, 9)
        self.forget()

    def forget(self):
        self.process.stdout.close()
        if servers.get(self.port) is self:
            del servers[self.port]


def _server_for(asked):
    """A server that `asked` can be a client of, and a connection that keeps it alive until then, or None."""
    host, port = asked["host_name"], int(asked["port"])
    ours = port in servers
    for server in list(servers.values()):
        if not server.is_alive():
            server.forget()
    running = servers.get(port)
    if running is not None and asked.get("multi_tenant"):
        # As torch shares a server among the stores of one process.
        try:
            holding = _Raw(running)
            holding.delete(running.owner)
            _log("one more store on the server at %s:%d" % (host, port))
            return running, holding
        except OSError:
            running.forget()  # it was about to end
    # One of ours whose store has just gone is still going; torch's own would have gone with the store.
    deadline = time.monotonic() + (2 if ours else 0)
    while True:
        try:
            server = _start(host, port, asked.get("master_listen_fd"))
            break
        except _Taken:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
    servers[server.port] = server
    return server, None


def program():
    """Path of the program."""
    own = os.environ.get("UVSTORE_PROGRAM")
    if own:
        return own
    name = "uvstore.exe" if os.name == "nt" else "uvstore"
    return os.path.join(os.path.dirname(os.path.abspath(__file__)), "bin", name)


def _start(host, port, fd):
    started = time.monotonic()
    address = "everywhere" if os.environ.get("UVSTORE_LISTEN") == "everywhere" else host
    argv = [program(), "serve", "--address", address, "--port", str(port), "--tie", str(os.getpid())]
    options = {}
    if os.name == "nt":
        if fd is not None:
            raise RuntimeError("a listening socket cannot be handed to it on Windows")
        # CREATE_NO_WINDOW, CREATE_NEW_PROCESS_GROUP: no window, and no Ctrl-C, which is for the ranks.
        options["creationflags"] = 0x08000000 | 0x00000200
    elif fd is not None:
        argv += ["--fd", str(fd)]
        options["pass_fds"] = (fd,)
    process = subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, **options
    )
    said = _first_line(process)
    if os.name != "nt":
        process.wait()  # it went on in a child of its own
    if said is None or "error" in said:
        process.stdout.close()
        if said is not None and said.get("taken"):
            raise _Taken(said["error"])
        raise RuntimeError(said["error"] if said else "%s did not say where it serves" % argv[0])
    if fd is not None:
        os.close(fd)  # the store owns it, as torch's would
    _log(
        "serving %s:%d with process %d, ready after %.1f ms"
        % (host, said["port"], said["pid"], 1000 * (time.monotonic() - started))
    )
    return _Server(process, said, host)


def _first_line(process):
    lines = []
    reader = threading.Thread(target=lambda: lines.append(process.stdout.readline()), daemon=True)
    reader.start()
    reader.join(_PATIENCE)
    if reader.is_alive():
        process.kill()
        raise RuntimeError("%s did not begin to serve within %d s" % (process.args[0], _PATIENCE))
    try:
        return json.loads(lines[0])
    except (ValueError, IndexError):
        return None


class _Raw:
    """A connection that speaks as much of the store's protocol as the hook needs."""

    # QueryType in TCPStoreBackend.hpp, and the number that both sides know.
    _VALIDATE, _GET, _DELETE = 0, 3, 8
    _MAGIC = 0x3C85F7CE

    def __init__(self, server):
        self._socket = socket.create_connection((server.host, server.port), timeout=10)
        self._socket.sendall(struct.pack("=BI", self._VALIDATE, self._MAGIC))

    def _ask(self, kind, key):
        self._socket.sendall(struct.pack("=BQ", kind, len(key)) + key)

    def _read(self, size):
        data = b""
        while len(data) < size:
            part = self._socket.recv(size - len(data))
            if not part:
                raise ConnectionError("the server closed the connection")
            data += part
        return data

    def delete(self, key):
        self._ask(self._DELETE, b"/" + key.encode())
        self._read(8)

    def get(self, key):
        self._ask(self._GET, key)
        return self._read(*struct.unpack("=Q", self._read(8)))

    def close(self):
        self._socket.close()


def _wait_for_workers(server, world, timeout):
    """As torch's server waits: each store that was made with a world size has counted itself."""
    deadline = None if timeout is None else time.monotonic() + timeout.total_seconds()
    raw = _Raw(server)
    try:
        while True:
            joined = int(raw.get(b"init/"))
            if joined >= world:
                return
            if deadline is not None and time.monotonic() > deadline:
                binding = sys.modules["torch._C._distributed_c10d"]
                raise getattr(binding, "DistStoreError", RuntimeError)(
                    "Timed out after %d seconds waiting for clients. %d/%d clients joined."
                    % (timeout.total_seconds(), joined, world)
                )
            time.sleep(0.01)
    finally:
        raw.close()


def _log(text):
    where = os.environ.get("UVSTORE_LOG")
    if not where:
        return
    line = "uvstore[%d]: %s\n" % (os.getpid(), text)
    try:
        if where == "stderr":
            sys.stderr.write(line)
        else:
            with open(where, "a") as log:
                log.write(line)
    except (OSError, AttributeError):
        pass  # a log is no reason to stop
