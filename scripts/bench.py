#!/usr/bin/env python3
"""Throughput, CPU per transaction, latency and memory of pgyard, beside a direct connection and the proxies that are installed.

    scripts/bench.py                              a fleet of PostgreSQL servers in a throw-away directory
    scripts/bench.py --fake --clients 1,64,1000   servers that answer at once: what the proxies themselves cost
    scripts/bench.py --save before.json           ... change something, build ...
    scripts/bench.py --compare before.json
    scripts/bench.py --pgyard before=/tmp/pgyard --pgyard after=target/release/pgyard     two builds in one run
    scripts/bench.py --scenario stream,neighbours,logins     large transfers, and small queries beside them and beside log-ins
    scripts/bench.py --scenario idle --clients 5000          memory of idle clients

pgbench runs against each target in turn, round after round, each round beginning with another target, so that the drift of a busy
machine falls on all alike. Ratios are taken within a round; what is printed are medians over the rounds.
docs/benchmarks.md says how to read the table.
"""

import argparse
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import bench_report
import bench_scenarios
from bench_process import BenchFailed
from bench_proxies import start_all, stop_all
from bench_servers import DATABASE, PASSWORD, ROLE, FakeFleet, PostgresFleet, postgresql_directory

LOADS = {
    "select-simple": ["-S", "-M", "simple"],
    "select-extended": ["-S", "-M", "extended"],
    "select-prepared": ["-S", "-M", "prepared"],
    "write-simple": ["-N", "-M", "simple"],
    "write-prepared": ["-N", "-M", "prepared"],
}
# One transaction of so many has its latency written down: pgbench and the disk have enough to do.
LATENCY_SHARE = 0.25
# pgbench's clock runs while its clients log in, one after the other: each so many get a second more.
LOGINS_PER_SECOND = 100


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fake", action="store_true", help="use the fake server instead of PostgreSQL")
    parser.add_argument("--clients", default="16", help="numbers of clients, separated by commas (16)")
    parser.add_argument("--seconds", type=int, default=5, help="length of one measurement (5)")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each target (5)")
    parser.add_argument("--loads", default="select-simple,select-extended,select-prepared,write-prepared",
                        help=f"of {', '.join(LOADS)}; all but write-simple")
    parser.add_argument("--threads", type=int, default=1, help="threads of pgbench (1)")
    parser.add_argument("--replicas", type=int, default=2, help="replicas of the fleet (2)")
    parser.add_argument("--scale", type=int, default=10, help="pgbench's scale (10: 150 MB)")
    parser.add_argument("--scenario", default="", help=f"instead of loads of pgbench: of {', '.join(bench_scenarios.SCENARIOS)}")
    parser.add_argument("--size", type=int, default=1024, help="length of one transfer of the scenario stream, MiB (1024)")
    parser.add_argument("--workers", default="", help="relay threads of pgyard (the number of cores); several, separated by commas: "
                        "a pgyard for each")
    parser.add_argument("--variant", action="append", default=[], metavar="NAME:LINE",
                        help="one more pgyard, with a further line for its [databases.bench]; may be repeated")
    parser.add_argument("--setting", action="append", default=[], metavar="LINE", help="a line for pgyard's [databases.bench]")
    parser.add_argument("--pgyard", action="append", metavar="[NAME=]PROGRAM", help="the program to measure; may be repeated")
    parser.add_argument("--yardstick", metavar="NAME", help="the proxy whose CPU is 1 (the first that serves the load)")
    parser.add_argument("--save", metavar="FILE", help="write the figures into this file")
    parser.add_argument("--compare", metavar="FILE", help="show the ratios beside those of a saved run")
    options = parser.parse_args()
    options.clients = [int(count) for count in options.clients.split(",")]
    options.loads = options.loads.split(",")
    options.scenarios = [name for name in options.scenario.split(",") if name]
    if unknown := [name for name in options.scenarios if name not in bench_scenarios.SCENARIOS]:
        parser.error(f"unknown scenario {unknown[0]}: {', '.join(bench_scenarios.SCENARIOS)}")
    if unknown := [load for load in options.loads if load not in LOADS]:
        parser.error(f"unknown load {unknown[0]}: {', '.join(LOADS)}")
    if min(options.rounds, options.seconds, *options.clients) < 1:
        parser.error("rounds, seconds and clients are at least 1")
    if options.compare and not os.path.exists(options.compare):
        parser.error(f"{options.compare} does not exist")
    return options


def pgbench(target, clients, *arguments):
    command = [str(postgresql_directory() / "pgbench"), "-n", "-h", "127.0.0.1", "-p", str(target.port), "-U", ROLE,
               "-c", str(clients), *arguments, DATABASE]
    environment = {**os.environ, "PGPASSWORD": PASSWORD, "PGSSLMODE": "disable", "PGGSSENCMODE": "disable"}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def warm_up(target):
    """Opens server connections and sees that the target works at all."""
    done = pgbench(target, 4, "-S", "-t", "200")
    if done.returncode != 0:
        raise BenchFailed(f"{target.name} does not work: {done.stderr.strip()[-1000:]}")


def measure(target, load, clients, options, directory, more=()):
    """One run of pgbench; None if it failed."""
    logs = Path(tempfile.mkdtemp(dir=directory))
    background = target.background
    before = background.cpu_seconds() if background else 0
    seconds = options.seconds + clients // LOGINS_PER_SECOND
    done = pgbench(target, clients, "-j", str(min(options.threads, clients)), "-T", str(seconds), "-l",
                   f"--sampling-rate={LATENCY_SHARE}", f"--log-prefix={logs}/latency", *more, *LOADS[load])
    after = background.cpu_seconds() if background else 0
    tps = re.search(r"tps = ([\d.]+) \(without", done.stdout)
    count = re.search(r"transactions actually processed: (\d+)", done.stdout)
    latencies = sorted(int(line.split()[2]) for log in logs.iterdir() for line in log.open())
    shutil.rmtree(logs)
    if done.returncode != 0 or not tps or not count or not latencies:
        print(f"{target.name}, {load}: {(done.stderr.strip().splitlines() or ['no result'])[-1]}", file=sys.stderr)
        return None
    return {
        "tps": float(tps[1]),
        "p50_us": latencies[len(latencies) // 2],
        "p99_us": latencies[len(latencies) * 99 // 100],
        "cpu_us": (after - before) * 1e6 / int(count[1]),
        "memory_mib": background.memory_kib() / 1024 if background else 0,
    }


def measure_load(targets, load, clients, options, directory):
    """All rounds of one load."""
    rounds = {target.name: [] for target in targets}
    able = [target for target in targets if not target.lacks(load)]
    for number in range(options.rounds):
        if sys.stderr.isatty():
            print(f"\r{load}, {clients} clients: round {number + 1} of {options.rounds} ", end="", file=sys.stderr, flush=True)
        begin = number % len(able)
        for target in able[begin:] + able[:begin]:
            rounds[target.name].append(measure(target, load, clients, options, directory))
    if sys.stderr.isatty():
        print("\r" + " " * 60, end="\r", file=sys.stderr)
    summary = bench_report.summarize(rounds, [target.name for target in targets], options.yardstick)
    for target in targets:
        if why := target.lacks(load):
            summary[target.name] = {"why": why}
    return {"load": load, "clients": clients, "targets": summary}


def machine():
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.M)
    return {"cores": os.cpu_count(), "model": model[1] if model else platform.machine(), "kernel": platform.release()}


def run(options, directory):
    fleet = (FakeFleet if options.fake else PostgresFleet)(directory, options.replicas, options.scale)
    targets = []
    try:
        fleet.start()
        targets = start_all(fleet, directory, options)
        for target in targets:
            warm_up(target)
        if options.scenarios:
            def small(target):
                more = ["-R", str(bench_scenarios.SMALL_RATE), "--sampling-rate=1"]
                return measure(target, "select-simple", bench_scenarios.SMALL_CLIENTS, options, directory, more)

            rows = {name: bench_scenarios.SCENARIOS[name](options, targets, small) for name in options.scenarios}
        else:
            rows = [measure_load(targets, load, clients, options, directory) for load in options.loads for clients in options.clients]
    finally:
        stop_all(targets)
        fleet.stop()
    keys = ("seconds", "rounds", "threads", "replicas", "scale", "workers", "setting", "variant", "yardstick")
    settings = {key: getattr(options, key) for key in keys}
    versions = {target.name: target.version for target in targets if target.version}
    return {"machine": machine(), "settings": {"server": fleet.kind, **settings}, "versions": versions, "rows": rows}


def main():
    options = parse_arguments()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    directory = Path(tempfile.mkdtemp(prefix="pgyard-bench-"))
    # Servers run as another user when we are root.
    directory.chmod(0o755)
    try:
        figures = run(options, directory)
    except BenchFailed as failure:
        sys.exit(f"bench: {failure}")
    except KeyboardInterrupt:
        sys.exit("bench: interrupted")
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    if not options.scenarios:
        bench_report.print_table(figures)
    if options.save:
        bench_report.save(figures, options.save)
    if options.compare and not options.scenarios:
        bench_report.print_comparison(figures, options.compare)


if __name__ == "__main__":
    main()
