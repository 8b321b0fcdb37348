#!/usr/bin/env python3
"""PostgreSQL's own regression and isolation suites, directly and through pgyard.

What a file prints through pgyard is compared with what it prints on the same machine without pgyard. Exits with 0 if no file differs but
those that tests/regress/known_differences.toml lists.
"""

import argparse
import difflib
import shutil
import sys
import tempfile
import tomllib
from pathlib import Path

from bench_process import BenchFailed
from bench_servers import ROOT, postgresql_directory
from regress_run import Run
from regress_source import Suites

KNOWN = ROOT / "tests" / "regress" / "known_differences.toml"
CACHE = ROOT / "target" / "regress"
# Which modes of pgyard each suite is run in.
MODES = {"regress": ["session", "transaction"], "isolation": ["session"]}


def main():
    options = arguments()
    kept = CACHE / "results"
    shutil.rmtree(kept, ignore_errors=True) if not options.keep else None
    kept.mkdir(parents=True, exist_ok=True)
    suites = Suites(postgresql_directory(), CACHE / "cache").prepare()
    options.directory = Path(tempfile.mkdtemp(prefix="pgyard-regress-"))
    options.directory.chmod(0o711)
    try:
        reports = [report for suite in options.suites for report in run_suite(suites, suite, options, kept)]
    finally:
        shutil.rmtree(options.directory, ignore_errors=True)
    return show(reports, suites.version)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pgyard", type=Path, default=ROOT / "target" / "debug" / "pgyard", help="the program (default: %(default)s)")
    parser.add_argument("--suite", dest="suites", action="append", choices=list(MODES), help="only this suite")
    parser.add_argument("--mode", dest="modes", action="append", choices=["session", "transaction"], help="only this mode")
    parser.add_argument("--replicas", type=int, default=1)
    parser.add_argument("--settings", default="", help="lines for pgyard's configuration, in the database's section")
    parser.add_argument("--keep", action="store_true", help="keep the last direct run and compare with it")
    parser.add_argument("files", nargs="*", help="files to run in this order, instead of the schedule")
    options = parser.parse_args()
    options.suites = options.suites or list(MODES)
    return options


def run_suite(suites, suite, options, kept):
    direct = None
    folder = kept / f"{suite}-direct"
    if options.keep and folder.exists():
        direct = {path.stem: path.read_bytes() for path in folder.glob("*.out")}
    if not direct:
        direct = execute(Run(suites, suite, "direct", options), kept)
    for mode in options.modes or MODES[suite]:
        through = execute(Run(suites, suite, mode, options), kept)
        yield suite, mode, direct, through


def execute(run, kept):
    results = run.execute()
    folder = kept / f"{run.suite}-{run.mode}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, text in results.items():
        (folder / f"{name}.out").write_bytes(text)
    for log in [*run.directory.glob("*.log"), *run.directory.glob("out/*.diffs")]:
        shutil.copy(log, folder / log.name)
    if run.pgyard:
        (folder / "metrics").write_text(run.metrics)
    return results


def show(reports, version):
    for suite, mode, direct, through in reports:
        differ = [n for n in direct if through.get(n) != direct[n]]
        print(suite, mode, len(direct) - len(differ), len(direct), differ)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchFailed as failure:
        sys.exit(f"regress: {failure}")
    except KeyboardInterrupt:
        sys.exit(130)
