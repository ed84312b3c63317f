"""Figures of uvstore: what the hook costs a Python, how long the first store takes, and how many clients connect in what
time, against the libuv store that is in the torch of this very Python.

    python uvstore_speed.py [--clients 1024] [--rounds 7] [--wheel WHEEL]

The Python has uvstore installed and, for the last figure, a torch with libuv; what is missing is left out. Prints one
JSON document.
"""

import argparse
import datetime
import json
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time

# That clients are in.
PROCESSES = 16


def median_ms(values):
    return round(1000 * statistics.median(values), 3)


def startup(rounds):
    """`python -c pass`, with the hook and with UVSTORE=0, by turns; and the hook's own two lines."""
    wall, cpu = {"0": [], "1": []}, {"0": [], "1": []}
    for _ in range(rounds):
        for hook in wall:
            before, started = used(), time.perf_counter()
            subprocess.run([sys.executable, "-c", "pass"], env=dict(os.environ, UVSTORE=hook), check=True)
            wall[hook].append(time.perf_counter() - started)
            cpu[hook].append(used() - before)
    code = (
        "import os, sys, time; sys.path.insert(0, %r)\n"
        "t = time.perf_counter(), time.process_time(); import uvstore; uvstore.watch()\n"
        "print(time.perf_counter() - t[0], time.process_time() - t[1])" % where()
    )
    alone = [
        [float(n) for n in subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True, capture_output=True,
                                          text=True).stdout.split()]
        for _ in range(rounds)
    ]
    return {
        "python_c_pass_ms": {"with the hook": median_ms(wall["1"]), "UVSTORE=0": median_ms(wall["0"])},
        "python_c_pass_cpu_ms": {"with the hook": median_ms(cpu["1"]), "UVSTORE=0": median_ms(cpu["0"])},
        "hook_itself_ms": median_ms([a for a, _ in alone]),
        "hook_itself_cpu_ms": median_ms([b for _, b in alone]),
        "runs": rounds,
    }


def used():
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return children.ru_utime + children.ru_stime


def where():
    import uvstore

    return os.path.dirname(os.path.dirname(uvstore.__file__))


def wave(store_type, port, clients):
    """Seconds until `clients` clients have connected and asked once; they are gone afterwards."""
    timeout = datetime.timedelta(seconds=120)
    # Processes: torch registers its objects without the interpreter's lock, and threads that make stores at one time
    # end it sooner or later.
    fork = multiprocessing.get_context("fork")
    gate = fork.Barrier(PROCESSES + 1)

    def some():
        gate.wait()
        stores = []
        for _ in range(clients // PROCESSES):
            store = store_type("127.0.0.1", port, None, False, timeout, False)
            store.add("joined", 1)
            stores.append(store)
        gate.wait()

    workers = [fork.Process(target=some) for _ in range(PROCESSES)]
    for w in workers:
        w.start()
    gate.wait()
    started = time.perf_counter()
    gate.wait()
    seconds = time.perf_counter() - started
    for w in workers:
        w.join()
    time.sleep(0.1)
    return seconds


def connect(clients, waves=3):
    """Seconds until the store of a new process is ready, and those of each wave of clients.

    The first wave is what a job meets. A process that served as many before has a large table of files: the kernel
    makes a process of several threads wait whenever that grows (expand_fdtable()).
    """
    from torch.distributed import TCPStore

    fork = multiprocessing.get_context("fork")
    said = fork.SimpleQueue()

    def serve():
        started = time.perf_counter()
        master = TCPStore("127.0.0.1", 0, None, True, datetime.timedelta(seconds=120), False)
        ready = time.perf_counter() - started
        seconds = [wave(TCPStore, master.port, clients) for _ in range(waves)]
        assert master.add("joined", 0) == waves * (clients // PROCESSES * PROCESSES), "somebody is missing"
        said.put((ready, seconds))

    process = fork.Process(target=serve)
    process.start()
    process.join()
    assert process.exitcode == 0, "the store's process failed"
    return said.get()


def stores(clients, rounds):
    import torch

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 8 * clients)), hard))
    ready, first, later = ({"in_process": [], "uvstore": []} for _ in range(3))
    for i in range(2 * rounds):
        which = "uvstore" if i % 2 else "in_process"
        os.environ["UVSTORE"] = "force" if which == "uvstore" else "1"
        took, seconds = connect(clients)
        if i >= 2:  # the first of each warms up
            ready[which].append(took)
            first[which].append(seconds[0])
            later[which].extend(seconds[1:])

    def ratio(ours, theirs):
        return round(statistics.median(ours) / statistics.median(theirs), 3)

    return {
        "torch": torch.__version__,
        "clients": clients,
        "rounds": rounds - 1,
        "first_store_ready_ms": {k: median_ms(v) for k, v in ready.items()},
        "first_clients_connected_ms": {k: median_ms(v) for k, v in first.items()},
        "later_clients_connected_ms": {k: median_ms(v) for k, v in later.items()},
        "uvstore_over_in_process": {
            "first": ratio(first["uvstore"], first["in_process"]),
            "later": ratio(later["uvstore"], later["in_process"]),
            "uvstore's first over in-process's later": ratio(first["uvstore"], later["in_process"]),
        },
        "first_by_pair": sorted(round(u / p, 3) for u, p in zip(first["uvstore"], first["in_process"])),
    }


def pip_install(wheel):
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        python = os.path.join(folder, "bin", "python")
        started = time.perf_counter()
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-index", wheel], check=True)
        return {"seconds": round(time.perf_counter() - started, 2), "bytes": os.path.getsize(wheel)}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--wheel")
    args = parser.parse_args()
    figures = {"python": sys.version.split()[0], "load": os.getloadavg()[0], "startup": startup(25)}
    if args.wheel:
        figures["pip_install"] = pip_install(args.wheel)
    try:
        import torch  # noqa: F401
    except ImportError:
        pass
    else:
        figures["stores"] = stores(args.clients, args.rounds)
    print(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
