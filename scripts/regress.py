#!/usr/bin/env python3
"""PostgreSQL's own regression and isolation suites, directly and through pgyard.

What a file prints through pgyard is compared with what it prints on the same machine without pgyard. Exits with 0 if no file differs but
those that tests/regress/known_differences.toml lists.
"""

import difflib
import shutil
import tomllib
from dataclasses import dataclass
from pathlib import Path

from bench_servers import ROOT, postgresql_directory
from foreign_suites import exit_with, parser, reads_on_replicas, run_directory
from regress_run import Run
from regress_source import Suites

KNOWN = ROOT / "tests" / "regress" / "known_differences.toml"
CACHE = ROOT / "target" / "regress"
# Of the difference of a file that nobody expected.
DIFF_LINES_MAX = 30
# Which modes of pgyard each suite is run in; regress_run.py says what they are.
MODES = {"regress": ["session", "session-reused", "transaction"], "isolation": ["session"]}


def main():
    options = arguments()
    kept = CACHE / "results"
    kept.mkdir(parents=True, exist_ok=True)
    suites = Suites(postgresql_directory(), CACHE / "cache").prepare()
    with run_directory("regress") as options.directory:
        reports = [report for suite in options.suites for report in run_suite(suites, suite, options, kept)]
    return show(reports, suites.version)


def arguments():
    shared = parser(__doc__, MODES, MODES["regress"], replicas=1)
    shared.add_argument("files", nargs="*", help="files to run in this order, instead of the schedule")
    options = shared.parse_args()
    options.suites = options.suites or list(MODES)
    return options


@dataclass
class Report:
    """A run through pgyard beside the direct one."""
    suite: str
    mode: str
    direct: dict
    through: dict
    reads_on_replicas: int
    folder: Path

    def differing(self):
        return sorted(name for name in {*self.direct, *self.through} if self.through.get(name) != self.direct.get(name))


def run_suite(suites, suite, options, kept):
    folder = kept / f"{suite}-direct"
    direct = {path.stem: path.read_bytes() for path in folder.glob("*.out")} if options.keep else {}
    if not direct:
        direct = execute(Run(suites, suite, "direct", options), folder)
    for mode in options.modes or MODES[suite]:
        if mode not in MODES[suite]:
            continue
        run = Run(suites, suite, mode, options)
        folder = kept / f"{suite}-{mode}"
        through = execute(run, folder)
        yield Report(suite, mode, direct, through, reads_on_replicas(run.metrics), folder)


def execute(run, folder):
    """Runs it, and keeps what it printed and logged."""
    results = run.execute()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, text in results.items():
        (folder / f"{name}.out").write_bytes(text)
    for log in [*run.directory.glob("*.log"), *run.directory.glob("out/*.diffs")]:
        shutil.copy(log, folder / log.name)
    (folder / "metrics").write_text(run.metrics)
    return results


def show(reports, version):
    """The table, and every file that differs. The exit status: 0 if nothing differs that is not known."""
    entries = tomllib.loads(KNOWN.read_text()).get("difference", [])
    known = {(entry["suite"], entry["mode"], entry["file"]): entry for entry in entries}
    print(f"\nPostgreSQL {version}: files that print through pgyard what they print directly\n")
    print(f"{'suite':<10} {'mode':<15} {'same':>5} {'of':>5}   statements on replicas")
    for report in reports:
        same = len(report.direct) - len(report.differing())
        print(f"{report.suite:<10} {report.mode:<15} {same:>5} {len(report.direct):>5}   {report.reads_on_replicas}")
    print()
    surprises = 0
    for report in reports:
        for name in report.differing():
            entry = known.get((report.suite, report.mode, name))
            surprises += entry is None
            print(f"{report.suite}, {report.mode}: {name} differs: {entry['reason'] if entry else 'NOT KNOWN'}")
            if entry is None:
                print(excerpt(report, name))
        for (suite, mode, name), entry in known.items():
            same = (suite, mode) == (report.suite, report.mode) and name in report.direct and name not in report.differing()
            if same and not entry.get("sometimes"):
                print(f"{suite}, {mode}: {name} does not differ any more: take it out of {KNOWN.relative_to(ROOT)}")
    print(f"What was printed is in {CACHE.relative_to(ROOT)}/results.")
    return 1 if surprises else 0


def excerpt(report, name):
    lines = [side.get(name, b"").decode(errors="replace").splitlines() for side in (report.direct, report.through)]
    diff = list(difflib.unified_diff(*lines, "direct", "pgyard", lineterm="", n=1))
    return "\n".join(f"    {line}" for line in diff[:DIFF_LINES_MAX])


if __name__ == "__main__":
    exit_with("regress", main)
