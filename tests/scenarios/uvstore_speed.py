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


def connect(store_type, clients, processes=16):
    """Seconds until the server is ready, and until `clients` clients have connected and asked once."""
    timeout = datetime.timedelta(seconds=120)
    started = time.perf_counter()
    master = store_type("127.0.0.1", 0, None, True, timeout, False)
    ready = time.perf_counter() - started
    # Processes: torch registers its objects without the interpreter's lock, and threads that make stores at one time
    # end it sooner or later.
    fork = multiprocessing.get_context("fork")
    gate = fork.Barrier(processes + 1)

    def some():
        gate.wait()
        stores = []
        for _ in range(clients // processes):
            store = store_type("127.0.0.1", master.port, None, False, timeout, False)
            store.add("joined", 1)
            stores.append(store)
        gate.wait()

    workers = [fork.Process(target=some) for _ in range(processes)]
    for w in workers:
        w.start()
    gate.wait()
    started = time.perf_counter()
    gate.wait()
    seconds = time.perf_counter() - started
    for w in workers:
        w.join()
    assert master.add("joined", 0) == clients // processes * processes, "somebody is missing"
    return ready, seconds


def in_a_process_of_its_own(clients):
    """`connect`, as a job has it: the table of files of a process that made no store yet is small, and a process with
    several threads that lets it grow waits for the kernel (expand_fdtable())."""
    from torch.distributed import TCPStore

    fork = multiprocessing.get_context("fork")
    said = fork.SimpleQueue()
    process = fork.Process(target=lambda: said.put(connect(TCPStore, clients)))
    process.start()
    answer = said.get()
    process.join()
    return answer


def in_this_process(clients):
    """`connect`, in a process that made stores of so many clients before."""
    from torch.distributed import TCPStore

    return connect(TCPStore, clients)


def stores(clients, rounds):
    import torch

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 8 * clients)), hard))
    return {
        "torch": torch.__version__,
        "clients": clients,
        "rounds": rounds - 1,
        "each store's process is a new one": side_by_side(in_a_process_of_its_own, clients, rounds),
        "all in one process": side_by_side(in_this_process, clients, rounds),
    }


def side_by_side(connected, clients, rounds):
    """Both stores by turns."""
    times = {"in_process": [], "uvstore": []}
    ready = {"in_process": [], "uvstore": []}
    for i in range(2 * rounds):
        which = "uvstore" if i % 2 else "in_process"
        os.environ["UVSTORE"] = "force" if which == "uvstore" else "1"
        first, seconds = connected(clients)
        if i >= 2:  # the first of each warms up
            ready[which].append(first)
            times[which].append(seconds)
        time.sleep(0.2)
    pairs = [u / p for u, p in zip(times["uvstore"], times["in_process"])]
    return {
        "first_store_ready_ms": {k: median_ms(v) for k, v in ready.items()},
        "clients_connected_ms": {k: median_ms(v) for k, v in times.items()},
        "uvstore_over_in_process": round(statistics.median(times["uvstore"]) / statistics.median(times["in_process"]), 3),
        "by_pair": [round(p, 3) for p in sorted(pairs)],
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
