"""What pgbench does not show: large transfers, small queries beside a large one, small queries beside a storm of log-ins, and
what an idle client costs."""

import asyncio
import threading
import time

from bench_client import StreamClient, storm
from bench_many import many
from bench_process import BenchFailed
from bench_report import median, shown
from bench_servers import DATABASE, PASSWORD, ROLE

MIB = 1 << 20
# Log-ins at the same time in a storm.
STORM = 500
# The load that a disturbance is measured by: so many clients, and so many statements a second in all, since a load that takes all
# the CPU there is measures the kernel's scheduler.
SMALL_CLIENTS = 4
SMALL_RATE = 400


def connect(target, chunk=MIB):
    return StreamClient(target.port, ROLE, PASSWORD, DATABASE, chunk)


class MemoryWatch:
    """The most memory that a target's processes take while it is open, beyond what they took before. MiB; None for no process."""

    def __init__(self, target):
        self.background = target.background
        self.stopped = threading.Event()

    def __enter__(self):
        if self.background:
            self.pids = self.background.family()
            self.before = self.peak = self.background.resident_kib(self.pids)
            self.thread = threading.Thread(target=self.watch)
            self.thread.start()
        return self

    def watch(self):
        while not self.stopped.wait(0.005):
            self.peak = max(self.peak, self.background.resident_kib(self.pids))

    def __exit__(self, *_):
        if self.background:
            self.stopped.set()
            self.thread.join()

    def grown_mib(self):
        return (self.peak - self.before) / 1024 if self.background else None


def transfers(size):
    """Name and action of each large transfer of about `size` bytes; the action returns how many there were."""
    rows, wide = size // 110, max(size // (100 * MIB), 1)
    numbers = f"generate_series(1, {rows})"
    text = "repeat('x', 100)"
    copy_in = "COPY bench_stream FROM STDIN WHERE false"
    return {
        "many rows": lambda client: client.run(f"SELECT {text} FROM {numbers}"),
        "huge rows": lambda client: client.run(f"SELECT repeat('x', {size // wide}) FROM generate_series(1, {wide})"),
        "COPY out": lambda client: client.run(f"COPY (SELECT {text} FROM {numbers}) TO STDOUT"),
        "COPY in": lambda client: client.copy_in(copy_in, b"y" * 1023 + b"\n", size),
        "parameter": lambda client: client.bind("SELECT length($1)", min(size, 256 * MIB)),
    }


def stream(options, targets):
    """Each transfer through each target: speed as a ratio to the direct one in the same round, memory of the one session."""
    setup = connect(targets[0])
    setup.run("DROP TABLE IF EXISTS bench_stream; CREATE UNLOGGED TABLE bench_stream (line text)")
    rows = []
    for name, transfer in transfers(options.size * MIB).items():
        speeds = {target.name: [] for target in targets}
        memory = {target.name: [] for target in targets}
        cpu = {target.name: [] for target in targets}
        for number in range(options.rounds):
            begin = number % len(targets)
            for target in targets[begin:] + targets[:begin]:
                client = connect(target)
                # What the first use of a target costs is not the transfer's.
                client.run("SELECT repeat('x', 1000) FROM generate_series(1, 10000)")
                used = target.background.cpu_seconds() if target.background else 0
                with MemoryWatch(target) as watch:
                    since = time.monotonic()
                    count = transfer(client)
                    elapsed = time.monotonic() - since
                if target.background:
                    cpu[target.name].append((target.background.cpu_seconds() - used) / (count / (1 << 30)))
                    memory[target.name].append(watch.grown_mib())
                speeds[target.name].append(count / elapsed / MIB)
                client.close()
        for target in targets:
            ratios = [mine / direct for mine, direct in zip(speeds[target.name], speeds["direct"])]
            rows.append({"load": name, "target": target.name, "mib_per_s": median(speeds[target.name]), "ratio": median(ratios),
                         "cpu_s_per_gib": median(cpu[target.name]), "memory_mib": max(memory[target.name], default=None)})
    setup.run("DROP TABLE bench_stream")
    setup.close()
    print(f"\n{'transfer':12}{'target':14}{'MiB/s':>8}{'/direct':>9}{'CPU s/GiB':>11}{'MiB more':>10}")
    for row in rows:
        print(f"{row['load']:12}{row['target']:14}{shown(row['mib_per_s'], 0):>8}{shown(row['ratio'], 2):>9}"
              f"{shown(row['cpu_s_per_gib'], 2):>11}{shown(row['memory_mib'], 1):>10}")
    print("MiB more: the most memory that the transfer's session took, in any round")
    return rows


class Disturbance:
    """Does something again and again in a thread of its own until it is left."""

    def __init__(self, action):
        self.stopped = threading.Event()
        self.failure = None
        self.thread = threading.Thread(target=self.work, args=(action,))

    def work(self, action):
        try:
            action(self.stopped.is_set)
        except Exception as failure:  # Told where the thread is joined.
            self.failure = failure

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        self.thread.join()
        if self.failure:
            raise self.failure


def stream_for_ever(target):
    def action(stopped):
        client = connect(target)
        while not stopped():
            client.run("SELECT repeat('x', 100) FROM generate_series(1, 300000)")
        client.close()
    return action


def copy_for_ever(target):
    def action(stopped):
        client = connect(target)
        while not stopped():
            client.copy_in("COPY bench_copy FROM STDIN WHERE false", b"y" * 1023 + b"\n", 64 * MIB)
        client.close()
    return action


def log_in_for_ever(target):
    return lambda stopped: asyncio.run(storm(target.port, ROLE, PASSWORD, DATABASE, STORM, stopped))


def beside(options, targets, disturbances, measure):
    """Latency of small queries alone and beside each disturbance."""
    setup = connect(targets[0])
    setup.run("DROP TABLE IF EXISTS bench_copy; CREATE UNLOGGED TABLE bench_copy (line text)")
    rows = []
    for name, disturbance in disturbances.items():
        alone, busy = ({target.name: [] for target in targets} for _ in range(2))
        for number in range(options.rounds):
            begin = number % len(targets)
            for target in targets[begin:] + targets[:begin]:
                before = measure(target)
                with Disturbance(disturbance(target)):
                    during = measure(target)
                if before and during:
                    alone[target.name].append(before)
                    busy[target.name].append(during)
        for target in targets:
            rows.append({"load": name, "target": target.name})
            for key in ("p50_us", "p99_us"):
                pairs = [(a[key], b[key]) for a, b in zip(alone[target.name], busy[target.name])]
                rows[-1] |= {f"alone_{key}": median([a for a, _ in pairs]), f"beside_{key}": median([b for _, b in pairs]),
                             f"factor_{key}": median([b / a for a, b in pairs])}
    setup.run("DROP TABLE bench_copy")
    setup.close()
    print(f"\n{'beside':14}{'target':14}" + "".join(f"{key + ' alone us':>15}{'beside us':>11}{'factor':>8}" for key in ("p50", "p99")))
    for row in rows:
        cells = "".join(f"{shown(row[f'alone_{key}'], 0):>15}{shown(row[f'beside_{key}'], 0):>11}{shown(row[f'factor_{key}'], 2):>8}"
                        for key in ("p50_us", "p99_us"))
        print(f"{row['load']:14}{row['target']:14}{cells}")
    return rows


def neighbours(options, targets, measure):
    """Small queries beside a large result and beside a large COPY."""
    return beside(options, targets, {"large result": stream_for_ever, "COPY in": copy_for_ever}, measure)


def logins(options, targets, measure):
    """Small queries beside many log-ins at once."""
    # Without a pool the servers would have to start as many processes.
    targets = [target for target in targets if target.pools]
    return beside(options, targets, {"log-ins": log_in_for_ever}, measure)


def idle(options, targets, _measure):
    """Memory of each target before clients come, and for each idle client that has run one query."""
    rows = []
    for target in targets:
        if not target.pools:
            continue
        base = target.background.memory_kib()
        clients = [connect(target) for _ in range(50)]
        before = target.background.memory_kib()
        count = max(options.clients)
        since = time.monotonic()
        try:
            for _ in range(count):
                clients.append(connect(target, chunk=4096))
                clients[-1].run("SELECT 1")
        except (BenchFailed, OSError) as failure:
            print(f"{target.name}: client {len(clients)}: {failure}")
            continue
        elapsed = time.monotonic() - since
        time.sleep(1)
        each = (target.background.memory_kib() - before) / count
        rows.append({"target": target.name, "base_mib": base / 1024, "kib_each": each, "logins_per_s": count / elapsed})
        for client in clients:
            client.close()
    print(f"\n{'target':14}{'base MiB':>10}{'KiB/client':>12}{'log-ins/s':>11}   ({count} idle clients, one after the other)")
    for row in rows:
        print(f"{row['target']:14}{shown(row['base_mib'], 1):>10}{shown(row['kib_each'], 2):>12}{shown(row['logins_per_s'], 0):>11}")
    return rows


SCENARIOS = {
    "stream": lambda options, targets, _measure: stream(options, targets),
    "neighbours": neighbours,
    "logins": logins,
    "idle": idle,
    "many": many,
}
