#!/usr/bin/env python3
"""Counts the instructions of the hot paths and compares them with benches/budget.toml.

    scripts/bench_budget.py             fails where a path takes more than its budget and the tolerance
    scripts/bench_budget.py --update    writes what was counted into the budget
    scripts/bench_budget.py NAME...     only paths with such a part in their names

Counts, not times: a busy machine does not change them. valgrind's callgrind counts what happens inside `measured_window` of
benches/micro.rs, so that neither preparing a path nor its first runs are in it. Counts do change with the compiler, with the
libraries and a little with hash seeds; hence the tolerance.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUDGET = ROOT / "benches" / "budget.toml"
WINDOW = "micro::measured_window*"
# Runs that are counted, for a path of few instructions and for one of many.
ITERATIONS, ITERATIONS_OF_LONG, LONG = 1000, 50, 10_000
TOLERANCE_PERCENT = 10
HEAD = """# Instructions of one run of each hot path, counted by `make bench-budget`. `make bench-check` fails where a path takes more than
# its budget and the tolerance. A change that raises a figure says in its commit message what is bought with it.
"""


def benchmark_program():
    """Builds the micro-benchmarks and returns the path of the program."""
    command = ["cargo", "bench", "--bench", "micro", "--no-run", "--message-format=json"]
    built = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    for line in built.stdout.splitlines():
        message = json.loads(line)
        if message.get("executable") and message.get("target", {}).get("name") == "micro":
            return message["executable"]
    sys.exit("cargo built no benchmark named micro")


def count(program, name, iterations):
    """Instructions of one run."""
    with tempfile.NamedTemporaryFile(prefix="callgrind-") as out:
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out.name}", "--collect-atstart=no",
                   f"--toggle-collect={WINDOW}", program, "--window", name, str(iterations)]
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if run.returncode != 0:
            sys.exit(f"{name}: {run.stderr.strip()[-2000:]}")
        totals = re.search(r"^(?:summary|totals): (\d+)", Path(out.name).read_text(), re.M)
    if not totals or int(totals[1]) < iterations:
        sys.exit(f"{name}: callgrind counted nothing in {WINDOW}")
    return int(totals[1]) / iterations


def count_well(program, name):
    """Few runs tell which paths are long; the others are run more often, so that what happens now and then is spread evenly."""
    counted = count(program, name, ITERATIONS_OF_LONG)
    return round(counted if counted > LONG else count(program, name, ITERATIONS))


def compiler():
    return subprocess.run(["rustc", "--version"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def write_budget(counted):
    width = max(map(len, counted))
    lines = [f"{name:{width}} = {instructions}" for name, instructions in counted.items()]
    text = f'{HEAD}tolerance_percent = {TOLERANCE_PERCENT}\ncompiler = "{compiler()}"\n\n[instructions]\n'
    BUDGET.write_text(text + "\n".join(lines) + "\n")
    print(f"{len(counted)} budgets written to {BUDGET.relative_to(ROOT)}")


def compare(budget, counted):
    """Prints the table; returns the names of paths that are over their budget or have none."""
    tolerance = budget["tolerance_percent"]
    if budget.get("compiler") != compiler():
        print(f"note: the budget was counted with {budget.get('compiler')}, this is {compiler()}")
    print(f"{'path':28}{'instructions':>13}{'budget':>9}{'change':>9}")
    over = []
    for name, instructions in counted.items():
        allowed = budget["instructions"].get(name)
        if allowed is None:
            over.append(name)
            print(f"{name:28}{instructions:13}{'none':>9}")
            continue
        change = (instructions / allowed - 1) * 100
        verdict = ""
        if change > tolerance:
            over.append(name)
            verdict = "  OVER"
        elif change < -tolerance:
            verdict = "  better: lower the budget"
        print(f"{name:28}{instructions:13}{allowed:9}{change:+8.1f}%{verdict}")
    return over


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--update", action="store_true", help="write what was counted into the budget")
    parser.add_argument("names", nargs="*", metavar="NAME")
    arguments = parser.parse_args()
    if arguments.update and arguments.names:
        parser.error("--update counts every path: name none")
    if not shutil.which("valgrind"):
        sys.exit("valgrind is not installed: scripts/setup.sh --bench installs it")
    program = benchmark_program()
    listed = subprocess.run([program, "--list"], capture_output=True, text=True, check=True).stdout.split()
    names = [name for name in listed if not arguments.names or any(part in name for part in arguments.names)]
    if not names:
        sys.exit("no path has such a name")
    with ThreadPoolExecutor(2) as workers:
        counted = dict(zip(names, workers.map(lambda name: count_well(program, name), names)))
    if arguments.update:
        return write_budget(counted)
    over = compare(tomllib.loads(BUDGET.read_text()), counted)
    if over:
        sys.exit(f"over budget by more than the tolerance: {', '.join(over)}\n"
                 "If that is meant, run `make bench-budget` and say in the commit message what is bought with it.")


if __name__ == "__main__":
    main()
