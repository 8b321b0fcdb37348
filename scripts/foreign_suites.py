"""What regress.py and drivers.py have in common: both run suites that others wrote, directly and through pgyard, and compare."""

import argparse
import re
import shutil
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

from bench_process import BenchFailed
from bench_servers import ROOT


def parser(description, suites, modes, replicas):
    """The options that both have. `modes`: pgyard's, of which `--mode` chooses; `replicas`: how many unless told."""
    shared = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared.add_argument("--pgyard", type=Path, default=ROOT / "target" / "debug" / "pgyard", help="the program (default: %(default)s)")
    shared.add_argument("--suite", dest="suites", action="append", choices=list(suites), help="only this suite")
    shared.add_argument("--mode", dest="modes", action="append", choices=modes, help="pgyard in this mode; may be repeated")
    shared.add_argument("--replicas", type=int, default=replicas, help="(default: %(default)s)")
    shared.add_argument("--keep", action="store_true", help="compare with the last direct run instead of running directly again")
    return shared


@contextmanager
def run_directory(name):
    """A directory for the servers of a run, which other users may enter, deleted at the end."""
    directory = Path(tempfile.mkdtemp(prefix=f"pgyard-{name}-"))
    directory.chmod(0o711)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def reads_on_replicas(metrics):
    """How many statements replicas answered, by pgyard's metrics."""
    counts = re.findall(r'^pgyard_queries_total\{[^}]*route="replica"[^}]*\} (\d+)', metrics, re.M)
    return sum(map(int, counts))


def exit_with(name, main):
    """Ends the program with what `main` returns; what goes wrong is said in a line."""
    try:
        sys.exit(main())
    except BenchFailed as failure:
        sys.exit(f"{name}: {failure}")
    except KeyboardInterrupt:
        sys.exit(130)
