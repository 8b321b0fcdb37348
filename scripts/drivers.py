#!/usr/bin/env python3
"""The test suites of drivers and frameworks, directly and through pgyard.

Each runs on a fresh primary with replicas, once against PostgreSQL itself and once through pgyard in transaction mode. Exits with 0 if no
test fails through pgyard that passes directly, but for those that tests/drivers/known_differences.toml lists.
"""

import json
import shutil
import tomllib
from dataclasses import asdict, dataclass

from bench_servers import ROOT, postgresql_directory
from drivers_run import SUITES, DriverRun, Outcome
from drivers_source import Sources
from foreign_suites import exit_with, parser, reads_on_replicas, run_directory

KNOWN = ROOT / "tests" / "drivers" / "known_differences.toml"
CACHE = ROOT / "target" / "drivers"
# Of what a test said that nobody expected to fail.
LINES_MAX = 25


def main():
    options = arguments()
    kept = CACHE / "results"
    kept.mkdir(parents=True, exist_ok=True)
    sources = Sources(postgresql_directory(), CACHE / "cache").prepare()
    with run_directory("drivers") as options.directory:
        reports = [report for suite in options.suites for report in run_suite(sources, suite, options, kept)]
    return show(reports)


def arguments():
    shared = parser(__doc__, SUITES, ["transaction", "session-reused", "session"], replicas=2)
    shared.add_argument("tests", nargs="*", help="what of the suite to run, as its own runner understands it")
    options = shared.parse_args()
    options.suites = options.suites or list(SUITES)
    options.modes = options.modes or ["transaction"]
    return options


@dataclass
class Report:
    """A run through pgyard beside the direct one."""
    suite: str
    mode: str
    direct: dict
    through: dict
    reads_on_replicas: int

    def worse(self):
        """Tests that pass directly, and through pgyard do not."""
        return sorted(name for name, outcome in self.direct.items()
                      if outcome.state == "passed" and self.through.get(name, Outcome("missing")).state != "passed")


def run_suite(sources, suite, options, kept):
    file = kept / f"{suite}-direct.json"
    if options.keep and file.exists():
        direct = {name: Outcome(**outcome) for name, outcome in json.loads(file.read_text()).items()}
    else:
        direct, _ = execute(DriverRun(sources, suite, "direct", options), file)
    if options.tests:
        direct_part = lambda through: {name: outcome for name, outcome in direct.items() if name in through}
    else:
        direct_part = lambda _: direct
    for mode in options.modes:
        through, metrics = execute(DriverRun(sources, suite, mode, options), kept / f"{suite}-{mode}.json")
        yield Report(suite, mode, direct_part(through), through, reads_on_replicas(metrics))


def execute(run, file):
    """Runs it, and keeps what became of its tests and what was logged."""
    run.execute()
    outcomes = run.outcomes()
    file.write_text(json.dumps({name: asdict(outcome) for name, outcome in outcomes.items()}, indent=1))
    folder = file.with_suffix("")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for log in run.directory.glob("*.log"):
        shutil.copy(log, folder / log.name)
    (folder / "metrics").write_text(run.metrics)
    return outcomes, run.metrics


def show(reports):
    """The table, and every test that is worse through pgyard. The exit status: 0 if there is none that is not known."""
    entries = tomllib.loads(KNOWN.read_text()).get("difference", [])
    known = {(entry["suite"], entry["test"]): entry for entry in entries}
    print(f"\n{'suite':<20} {'mode':<15} {'tests':>6} {'fail directly':>14} {'through pgyard':>15} {'only there':>11}   statements on replicas")
    for report in reports:
        failed = [sum(outcome.state == "failed" for outcome in side.values()) for side in (report.direct, report.through)]
        run = sum(outcome.state != "skipped" for outcome in report.direct.values())
        print(f"{report.suite:<20} {report.mode:<15} {run:>6} {failed[0]:>14} {failed[1]:>15} {len(report.worse()):>11}"
              f"   {report.reads_on_replicas}")
    print()
    surprises = 0
    for report in reports:
        for name in report.worse():
            entry = known.get((report.suite, name))
            surprises += entry is None
            outcome = report.through.get(name, Outcome("missing"))
            print(f"{report.suite}, {report.mode}: {name} {outcome.state}: {entry['reason'] if entry else 'NOT KNOWN'}")
            if entry is None:
                print("\n".join(f"    {line}" for line in outcome.text.strip().splitlines()[-LINES_MAX:]))
        for (suite, name), entry in known.items():
            passes = report.through.get(name, Outcome("missing")).state == "passed"
            if suite == report.suite and passes and not entry.get("sometimes"):
                print(f"{suite}, {report.mode}: {name} passes: take it out of {KNOWN.relative_to(ROOT)}")
    print(f"What was said is in {CACHE.relative_to(ROOT)}/results.")
    return 1 if surprises else 0


if __name__ == "__main__":
    exit_with("drivers", main)
