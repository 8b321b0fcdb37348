"""One run of one suite: a fresh primary with replicas, pgyard in front of them or not, and what became of each test."""

import os
import re
import shutil
import subprocess
import xml.etree.ElementTree as xml
from dataclasses import dataclass

from bench_process import BenchFailed
from regress_run import Run, Step

# SQLAlchemy's takes ten minutes on two cores; a suite that hangs must not hang the run.
LIMIT_SECONDS = 60 * 60
TEST_SECONDS = 60


@dataclass
class Outcome:
    """What became of one test: "passed", "failed" or "skipped", with what was said."""
    state: str
    text: str = ""


class DriverRun(Run):
    """A run in one mode: "direct", or one of regress_run.SETTINGS."""

    def outcomes(self):
        return SUITES[self.suite].results(self)

    def run_driver(self, port):
        suite = SUITES[self.suite]
        for sql in suite.before:
            database = "test" if sql.startswith("\\test ") else "postgres"
            self.program("psql", "-qX", "-v", "ON_ERROR_STOP=1", "-h", self.directory, "-p", self.primary, "-U", "postgres", "-d", database,
                         "-c", sql.removeprefix("\\test "))
        command, folder, environment = suite.command(self, port)
        with Step(f"{self.suite}, {self.mode}"), (self.directory / "driver.log").open("w") as log:
            process = subprocess.Popen([str(word) for word in command], cwd=folder, stdout=log, stderr=log, start_new_session=True,
                                       env={**clean_environment(), "HOME": str(self.directory), **environment})
            try:
                process.wait(LIMIT_SECONDS)
            except BaseException:
                os.killpg(process.pid, 9)
                process.wait()
                raise
        if not self.outcomes():
            raise BenchFailed(f"{self.suite} did not start:\n{(self.directory / 'driver.log').read_text()[-2000:]}")


def clean_environment():
    return {name: value for name, value in os.environ.items() if not name.startswith(("PG", "PYTEST", "PYTHON"))}


class Pytest:
    """A suite that pytest runs."""

    before = []

    def pytest(self, run):
        return [run.suites.python, "-m", "pytest", "-p", "no:cacheprovider", f"--junitxml={run.directory / 'results.xml'}",
                f"--timeout={TEST_SECONDS}"]

    def results(self, run):
        file = run.directory / "results.xml"
        if not file.exists():
            return {}
        found = {}
        for case in xml.parse(file).getroot().iter("testcase"):
            name = f"{case.get('classname').removeprefix('test.').removeprefix('tests.')}::{case.get('name')}"
            outcome = Outcome("passed")
            for said in case:
                if said.tag in ("failure", "error"):
                    outcome = Outcome("failed", f"{outcome.text}{said.text or said.get('message')}\n")
                elif said.tag == "skipped" and outcome.state == "passed":
                    outcome = Outcome("skipped")
            # A test whose clean-up fails is listed twice.
            if found.get(name, outcome).state != "failed" or outcome.state == "failed":
                found[name] = outcome
        return found


class Asyncpg(Pytest):
    """asyncpg's own tests. What it needs a server of its own for (pg_hba.conf, certificates) it skips."""

    def command(self, run, port):
        copy = run.directory / "suite"
        shutil.copytree(run.suites.asyncpg() / "tests", copy / "tests")
        environment = {"PGHOST": "127.0.0.1", "PGPORT": str(port), "PGUSER": "postgres", "PGDATABASE": "postgres"}
        return [*self.pytest(run), "-q", "--tb=short", *(run.options.tests or ["tests"])], copy, environment


class Sqlalchemy(Pytest):
    """SQLAlchemy's tests of PostgreSQL's dialect, and those that it has for every dialect, with one driver."""

    # What README.unittests.rst asks for.
    before = ["CREATE ROLE scott SUPERUSER LOGIN PASSWORD 'tiger'", "CREATE DATABASE test OWNER scott",
              "\\test CREATE SCHEMA test_schema AUTHORIZATION scott", "\\test CREATE SCHEMA test_schema_2 AUTHORIZATION scott",
              "\\test CREATE EXTENSION hstore; CREATE EXTENSION citext",
              "ALTER DATABASE test SET default_text_search_config = 'pg_catalog.english'"]

    def __init__(self, driver):
        self.driver = driver

    def command(self, run, port):
        copy = run.directory / "suite"
        shutil.copytree(run.suites.sqlalchemy(), copy, ignore=shutil.ignore_patterns("doc", "build", "*.c", "*.so"))
        tests = run.options.tests or ["test/dialect/postgresql", "test/dialect/test_suite.py"]
        url = f"postgresql+{self.driver}://scott:tiger@127.0.0.1:{port}/test"
        return [*self.pytest(run), "--maxfail=100000", f"--dburi={url}", *tests], copy, {}


class LibPq:
    """Go's lib/pq. Its tests of TLS and of password files want files of their own, and are skipped."""

    before = ["CREATE DATABASE pqgotest"]

    def command(self, run, port):
        binary, source = run.suites.lib_pq()
        environment = {"PGHOST": "127.0.0.1", "PGPORT": str(port), "PGUSER": "postgres", "PGDATABASE": "pqgotest", "PGSSLMODE": "disable"}
        chosen = [f"-test.run={'|'.join(run.options.tests)}"] if run.options.tests else []
        return [binary, "-test.v", f"-test.timeout={LIMIT_SECONDS}s", *chosen], source, environment

    def results(self, run):
        log = (run.directory / "driver.log").read_text(errors="replace")
        states = {"PASS": "passed", "FAIL": "failed", "SKIP": "skipped"}
        found = {}
        began = list(re.finditer(r"^=== RUN +(\S+)$", log, re.M))
        for number, begin in enumerate(began):
            name, end = begin[1], began[number + 1].start() if number + 1 < len(began) else len(log)
            verdict = re.search(rf"^ *--- (PASS|FAIL|SKIP): {re.escape(name)} ", log, re.M)
            # Without a verdict it took the process with it.
            state = states[verdict[1]] if verdict else "failed"
            found[name] = Outcome(state, log[begin.end():end] if state == "failed" else "")
        return found


SUITES = {"asyncpg": Asyncpg(), "sqlalchemy-asyncpg": Sqlalchemy("asyncpg"), "sqlalchemy-psycopg": Sqlalchemy("psycopg"), "lib-pq": LibPq()}
