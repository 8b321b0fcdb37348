"""Test suites of drivers and frameworks: fetched with the programs that run them, below target/drivers. Nothing is installed.

Python's come from its registry: source packages carry their tests. Go's lib/pq and its compiler are packages of Debian.
"""

import os
import re
import shutil
import subprocess
import sys
import tarfile

from bench_process import BenchFailed
from regress_source import Apt, command, one

ASYNCPG = "asyncpg==0.32.0"
SQLALCHEMY = "sqlalchemy==2.0.58"
# Cython and setuptools only so that pip can look at source packages without building them.
PYTHON = [ASYNCPG, SQLALCHEMY, "psycopg[binary]==3.3.9", "greenlet==3.5.6", "pytest==9.2.0", "pytest-timeout==2.4.0", "cython==3.3.1",
          "setuptools==80.9.0", "wheel==0.48.0", "distro==1.9.0"]
GO_SUITE = "golang-github-lib-pq"


class Sources:
    """Where the suites are, and the programs that run them."""

    def __init__(self, programs, cache):
        # PostgreSQL's; the name is what regress_run.Run asks for.
        self.programs = programs
        self.cache = cache
        self.python = cache / "venv" / "bin" / "python"

    def prepare(self):
        """Makes sure that everything is in the cache."""
        for name, wanted, make in (("python", PYTHON, self.fetch_python), ("go", [GO_SUITE], self.fetch_go)):
            ready = self.cache / f"{name}.ready"
            text = "\n".join(wanted)
            if not ready.exists() or ready.read_text() != text:
                print(f"drivers: fetching what {name} needs ({', '.join(wanted)})", flush=True)
                make()
                ready.write_text(text)
        return self

    def asyncpg(self):
        return one(self.cache / "python", "asyncpg-*/tests").parent

    def sqlalchemy(self):
        return one(self.cache / "python", "sqlalchemy-*/test").parent

    def lib_pq(self):
        return self.cache / "go" / "pq.test", one(self.cache / "go", f"{GO_SUITE}-*")

    def fetch_python(self):
        folder = fresh(self.cache / "python")
        shutil.rmtree(self.cache / "venv", ignore_errors=True)
        command([sys.executable, "-m", "venv", self.cache / "venv"])
        pip = [self.python, "-m", "pip", "--disable-pip-version-check", "--quiet"]
        command([*pip, "install", *PYTHON])
        for package in (ASYNCPG, SQLALCHEMY):
            name = package.split("=")[0]
            command([*pip, "download", "--no-deps", "--no-build-isolation", "--no-binary", name, package], cwd=folder)
            unpack(one(folder, f"{name}-*.tar.gz"), folder)
        # What was installed is tested, not the sources beside the tests.
        shutil.rmtree(self.asyncpg() / "asyncpg")

    def fetch_go(self):
        folder = fresh(self.cache / "go")
        apt = Apt(folder / "apt")
        apt.update()
        apt.run("source", "--download-only", GO_SUITE, cwd=folder)
        for package in compiler_packages(apt):
            apt.run("download", package, cwd=folder)
            command(["dpkg-deb", "-x", one(folder, f"{package}_*.deb"), folder / "compiler"])
        unpack(one(folder, f"{GO_SUITE}_*.orig.tar.gz"), folder)
        binary, source = self.lib_pq()
        environment = {**os.environ, "GOFLAGS": "-mod=mod", "GOPROXY": "off", "GOTOOLCHAIN": "local", "GOCACHE": str(folder / "build"),
                       "GOPATH": str(folder / "path"), "CGO_ENABLED": "0", "GOROOT": str(one(folder / "compiler", "usr/lib/go-*"))}
        done = subprocess.run([one(folder / "compiler", "usr/lib/go-*/bin/go"), "test", "-c", "-o", binary, "."], cwd=source,
                              env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            raise BenchFailed(f"lib/pq was not built:\n{done.stdout[-2000:]}")


def compiler_packages(apt):
    """The packages that Debian's `golang-go` stands for."""
    found = re.search(r"Depends: (golang-[\d.]+)-go", apt.cache("depends", "golang-go"))
    if not found:
        raise BenchFailed("Debian's archive has no golang-go")
    return [f"{found[1]}-go", f"{found[1]}-src"]


def fresh(folder):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def unpack(archive, folder):
    with tarfile.open(archive) as opened:
        opened.extractall(folder, filter="data")
