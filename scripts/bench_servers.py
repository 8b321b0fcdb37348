"""What stands behind the proxies: a throw-away fleet of PostgreSQL servers, or a fake server that answers at once."""

import os
import shutil
import subprocess
import time
from glob import glob
from pathlib import Path

from bench_process import Background, BenchFailed, as_server_user, free_ports, server_user

ROOT = Path(__file__).resolve().parent.parent
ROLE = DATABASE = PASSWORD = "bench"


def postgresql_directory():
    """The directory of initdb, postgres and pg_basebackup: PGYARD_PG_BIN, else the newest that is installed."""
    def version(path):
        return [int(part) for part in Path(path).parent.name.split(".") if part.isdigit()]

    found = [os.environ.get("PGYARD_PG_BIN", "")]
    found += sorted(glob("/usr/lib/postgresql/*/bin") + glob("/usr/pgsql-*/bin"), key=version, reverse=True)
    found += glob("/opt/homebrew/opt/postgresql@*/bin") + [os.path.dirname(shutil.which("initdb") or "")]
    for directory in filter(None, found):
        if os.access(Path(directory, "initdb"), os.X_OK) and os.access(Path(directory, "pg_basebackup"), os.X_OK):
            return Path(directory)
    raise BenchFailed("PostgreSQL's server programs were not found: scripts/setup.sh installs them, PGYARD_PG_BIN names them")


class PostgresFleet:
    """A primary and streaming replicas on loopback."""

    kind = "PostgreSQL"
    # What proxies must prove to the servers, and clients to the proxies.
    authentication = "scram-sha-256"

    def __init__(self, directory, replicas, scale):
        self.programs = postgresql_directory()
        self.directory = directory / "fleet"
        self.directory.mkdir()
        if user := server_user():
            shutil.chown(self.directory, user)
        self.scale = scale
        ports = free_ports(1 + replicas)
        self.primary, self.replicas = ports[0], ports[1:]
        self.started = []

    def start(self):
        print(f"starting PostgreSQL: a primary and {len(self.replicas)} replicas, scale {self.scale}", flush=True)
        primary = self.directory / "primary"
        self.run("initdb", "-D", primary, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync", "--no-locale")
        self.append(primary / "postgresql.conf", self.settings())
        self.append(primary / "pg_hba.conf", "local all all trust\nlocal replication all trust\n"
                    f"host all all 127.0.0.1/32 {self.authentication}\nhost replication all 127.0.0.1/32 trust\n", replace=True)
        self.start_one(primary, self.primary)
        self.psql(f"create role {ROLE} superuser login password '{PASSWORD}'")
        self.psql(f"create database {DATABASE} owner {ROLE}")
        self.run("pgbench", "-i", "-q", "-s", self.scale, "-h", self.directory, "-p", self.primary, "-U", ROLE, DATABASE)
        for number, port in enumerate(self.replicas, 1):
            data = self.directory / f"replica{number}"
            self.run("pg_basebackup", "-h", self.directory, "-p", self.primary, "-U", "postgres", "-D", data, "-R",
                     "-X", "stream", "-C", "-S", f"replica{number}", "-c", "fast", "--no-sync")
            self.start_one(data, port)
        self.wait_for_replicas()

    def settings(self):
        return (f"listen_addresses = '127.0.0.1'\nunix_socket_directories = '{self.directory}'\nmax_connections = 500\n"
                "shared_buffers = 256MB\nhot_standby = on\nhot_standby_feedback = on\nmax_wal_size = 4GB\n"
                # Auto-vacuum would come and go between rounds.
                "autovacuum = off\n")

    def start_one(self, data, port):
        self.started.append(data)
        self.run("pg_ctl", "-D", data, "-l", f"{data}.log", "-w", "-s", "-o", f"-p {port}", "start")

    def wait_for_replicas(self):
        waiting = "select count(*) from pg_stat_replication where replay_lsn = pg_current_wal_lsn()"
        for _ in range(300):
            if self.psql(waiting) == str(len(self.replicas)):
                return
            time.sleep(0.1)
        raise BenchFailed(f"the replicas do not catch up: see {self.directory}")

    def psql(self, sql):
        return self.run("psql", "-qAtX", "-h", self.directory, "-p", self.primary, "-U", "postgres", "-c", sql).strip()

    def append(self, path, text, replace=False):
        as_server_user(["tee", *([] if replace else ["-a"]), str(path)], input=text)

    def run(self, program, *arguments):
        return as_server_user([str(self.programs / program), *map(str, arguments)], cwd=self.directory)

    def stop(self):
        # The replicas first: a primary waits for those that stream from it.
        for data in reversed(self.started):
            try:
                self.run("pg_ctl", "-D", data, "-m", "immediate", "-w", "-s", "stop")
            except BenchFailed as failure:
                print(f"bench: {failure}")


class FakeFleet:
    """A fake primary and fake replicas, in one process that answers every statement at once."""

    kind = "the fake server"
    authentication = "trust"

    def __init__(self, directory, replicas, _scale):
        self.directory = directory
        ports = free_ports(1 + replicas)
        self.primary, self.replicas = ports[0], ports[1:]
        self.process = None

    def start(self):
        program = self.directory / "fake_server"
        # Without cargo: it needs the standard library only, and so is built in seconds beside any build of pgyard.
        source = ROOT / "benches" / "fake_server.rs"
        subprocess.run(["rustc", "-O", "--edition", "2024", "-o", program, source], check=True)
        command = [str(program), "--primary", f"127.0.0.1:{self.primary}"]
        for port in self.replicas:
            command += ["--replica", f"127.0.0.1:{port}"]
        self.process = Background("fake_server", command, self.directory, self.primary)

    def stop(self):
        if self.process:
            self.process.stop()
