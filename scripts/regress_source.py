"""PostgreSQL's own test suites for the installed version: found at the distribution, unpacked, and built where they need building.

Nothing is installed. apt is given a list of sources and a state directory of its own below the cache, so that the machine's lists stay as they
are, and the server's headers are unpacked beside the source.
"""

import os
import re
import shutil
import subprocess
import zlib
from pathlib import Path

from bench_process import BenchFailed

# Sessions of isolationtester are known to the server by their process number, which a proxy's BackendKeyData does not tell. A session's own
# notifications come with the number that it was told, as PQbackendPID would have said it.
ASK_FOR_PID = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include "libpq-fe.h"
static struct { const PGconn *connection; int pid; } known[64];
static int count;
int PQbackendPID(const PGconn *connection)
{
    PGresult *answer = PQexec((PGconn *) connection, "SELECT pg_catalog.pg_backend_pid()");
    int pid = PQntuples(answer) == 1 ? atoi(PQgetvalue(answer, 0, 0)) : 0;
    PQclear(answer);
    if (count < 64) {
        known[count].connection = connection;
        known[count++].pid = pid;
    }
    return pid;
}
PGnotify *PQnotifies(PGconn *connection)
{
    PGnotify *(*next)(PGconn *) = (PGnotify *(*)(PGconn *)) dlsym(RTLD_NEXT, "PQnotifies");
    int (*told)(const PGconn *) = (int (*)(const PGconn *)) dlsym(RTLD_NEXT, "PQbackendPID");
    PGnotify *notification = next(connection);
    for (int i = 0; notification != NULL && i < count; i++)
        if (known[i].connection == connection && notification->be_pid == told(connection)) {
            notification->be_pid = known[i].pid;
            break;
        }
    return notification;
}
"""


class Suites:
    """Where the suites of one PostgreSQL version are, and the programs that run them."""

    def __init__(self, programs, cache):
        self.programs = Path(programs)
        self.cache = cache
        text = output([self.programs / "postgres", "--version"])
        self.version = re.search(r"\d+\.\d+", text)[0]
        self.major = self.version.split(".")[0]
        self.package = f"postgresql-{self.major}"
        self.drivers = self.programs.parent / "lib" / "pgxs" / "src" / "test"
        self.source = None
        self.libraries = None

    def prepare(self):
        """Makes sure that source and libraries are in the cache."""
        for driver in ("regress/pg_regress", "isolation/pg_isolation_regress", "isolation/isolationtester"):
            if not os.access(self.drivers / driver, os.X_OK):
                raise BenchFailed(f"{self.drivers / driver} is missing: it comes with Debian's package {self.package}")
        self.cache.mkdir(parents=True, exist_ok=True)
        ready = self.cache / "ready"
        holds = f"{self.version} {zlib.crc32(ASK_FOR_PID.encode())}"
        if not ready.exists() or ready.read_text() != holds:
            for old in self.cache.iterdir():
                shutil.rmtree(old) if old.is_dir() else old.unlink()
            self.fetch()
            self.build()
            ready.write_text(holds)
        self.libraries = self.cache / "libraries"
        self.source = next(path for path in self.cache.glob(f"postgresql-{self.major}*") if path.is_dir())
        return self

    def fetch(self):
        """Source and headers, of this very version where the archive still has it, else of the nearest."""
        apt = Apt(self.cache / "apt")
        apt.update()
        source = nearest(self.version, apt.source_versions(self.package))
        headers = nearest(self.version, apt.binary_versions(f"postgresql-server-dev-{self.major}"))
        print(f"regress: source of {self.package} {source}, headers {headers}", flush=True)
        # Only downloaded: unpacking it as a Debian source would take dpkg-dev, and its patches do not touch the suites.
        apt.run("source", "--download-only", f"{self.package}={source}", cwd=self.cache)
        apt.run("download", f"postgresql-server-dev-{self.major}={headers}", cwd=self.cache)
        archive = one(self.cache, "*.orig.tar.*")
        wanted = ["*/src/test/regress", "*/src/test/isolation", "*/contrib/spi", "*/COPYRIGHT"]
        command(["tar", "xf", archive, "--wildcards", *wanted], cwd=self.cache)
        command(["dpkg-deb", "-x", one(self.cache, "postgresql-server-dev-*.deb"), self.cache / "headers"])

    def build(self):
        """regress.so, refint.so, autoinc.so, and the shim for isolationtester."""
        libraries = self.cache / "libraries"
        libraries.mkdir(exist_ok=True)
        source = one(self.cache, "postgresql-*/src").parent
        server = self.cache / "headers" / "usr/include/postgresql" / self.major / "server"
        for code in ("src/test/regress/regress.c", "contrib/spi/refint.c", "contrib/spi/autoinc.c"):
            compile_library(libraries, source / code, server)
        shim = self.cache / "backend_pid.c"
        shim.write_text(ASK_FOR_PID)
        compile_library(libraries, shim, output(["pg_config", "--includedir"]).strip())


class Apt:
    """apt with a list and a state directory of its own. Needs no root."""

    def __init__(self, directory):
        for name in ("lists/partial", "cache/archives/partial"):
            (directory / name).mkdir(parents=True, exist_ok=True)
        sources = directory / "regress.sources"
        sources.write_text(self.sources())
        self.options = ["-o", f"Dir::Etc::SourceList={sources}", "-o", "Dir::Etc::SourceParts=/dev/null",
                        "-o", f"Dir::State::Lists={directory}/lists", "-o", f"Dir::Cache={directory}/cache", "-o", "APT::Sandbox::User="]

    def sources(self):
        """The machine's own archives, for source packages too."""
        release = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', Path("/etc/os-release").read_text(), re.M))
        suite = release.get("VERSION_CODENAME")
        if release.get("ID") != "debian" or not suite:
            raise BenchFailed("the suites are taken from Debian's archive; this is another system")
        stanza = ("Types: deb deb-src\nURIs: http://deb.debian.org/{}\nSuites: {}\nComponents: main\n"
                  "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\n")
        return stanza.format("debian", f"{suite} {suite}-updates") + stanza.format("debian-security", f"{suite}-security")

    def update(self):
        self.run("update")

    def source_versions(self, package):
        return re.findall(rf"^Package: {re.escape(package)}\n(?:.+\n)*?Version: (\S+)", self.cache("showsrc", package), re.M)

    def binary_versions(self, package):
        return re.findall(r"\|\s*(\S+)\s*\|", self.cache("madison", package))

    def cache(self, *arguments):
        return output(["apt-cache", *self.options, *arguments])

    def run(self, *arguments, cwd=None):
        command(["apt-get", "-qq", *self.options, *arguments], cwd=cwd)


def nearest(version, candidates):
    """Of package versions such as 15.18-0+deb12u1, the one of this version, else the one whose minor number is nearest."""
    def distance(candidate):
        return abs(int(re.match(r"\d+\.(\d+)", candidate)[1]) - int(version.split(".")[1]))

    usable = [candidate for candidate in candidates if candidate.startswith(version.split(".")[0] + ".")]
    if not usable:
        raise BenchFailed(f"Debian's archive has no package of PostgreSQL {version}: does the installed one come from elsewhere?")
    return min(usable, key=distance)


def compile_library(directory, code, includes):
    # REFINT_VERBOSE: what the suite expects, as contrib/spi/Makefile says.
    command(["cc", "-O1", "-fPIC", "-shared", "-w", "-DREFINT_VERBOSE", "-I", includes, "-I", code.parent, "-o", directory / f"{code.stem}.so", code])


def one(directory, pattern):
    found = sorted(directory.glob(pattern))
    if len(found) != 1:
        raise BenchFailed(f"{directory} should hold one {pattern}, and has {len(found)}")
    return found[0]


def output(words):
    return subprocess.run([str(word) for word in words], check=True, stdout=subprocess.PIPE, text=True).stdout


def command(words, cwd=None):
    done = subprocess.run([str(word) for word in words], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise BenchFailed(f"{' '.join(str(word) for word in words)} failed:\n{done.stdout[-2000:]}")
