"""The proxies that are compared: pgyard, and as yardsticks those of HAProxy and PgBouncer that are installed."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from bench_process import Background, BenchFailed, free_ports, not_as_root, server_user
from bench_servers import DATABASE, PASSWORD, ROLE

POOL_SIZE = 20
CLIENTS_MAX = 6_000


class Direct:
    """No proxy: what the others are compared with."""

    name, version = "direct", ""
    background = None
    # Whether many clients share few server connections.
    pools = False

    def __init__(self, fleet):
        self.port = fleet.primary

    def lacks(self, _load):
        return None

    def stop(self):
        pass


class Proxy:
    """A proxy in front of the fleet. Subclasses write its configuration and say how it is started."""

    name = ""
    pools = True

    def __init__(self, fleet, directory, program):
        self.fleet, self.directory, self.program = fleet, directory / self.name, program
        self.directory.mkdir()
        (self.port,) = free_ports(1)
        self.version = self.find_version()
        command = self.command()
        if user := server_user():
            for path in (self.directory, *self.directory.iterdir()):
                shutil.chown(path, user)
        self.background = Background(self.name, command, directory, self.port)

    def find_version(self):
        shown = subprocess.run([self.program, self.version_flag], capture_output=True, text=True).stdout
        found = re.search(r"\d+\.\d+(\.\d+)?", shown)
        return found[0] if found else "?"

    version_flag = "--version"

    def command(self):
        raise NotImplementedError

    def lacks(self, _load):
        """Why it cannot serve a load, if so."""
        return None

    def write(self, name, text):
        path = self.directory / name
        path.write_text(text)
        return str(path)

    def stop(self):
        self.background.stop()


class HaProxy(Proxy):
    """TCP forwarding to the primary: it understands nothing of what passes. The floor for a proxy process."""

    name, version_flag = "haproxy", "-v"
    pools = False

    def command(self):
        configuration = self.write("haproxy.cfg", f"""global
    maxconn {CLIENTS_MAX}
defaults
    mode tcp
    timeout connect 5s
    timeout client 1h
    timeout server 1h
listen postgresql
    bind 127.0.0.1:{self.port}
    server primary 127.0.0.1:{self.fleet.primary}
""")
        return [self.program, "-db", "-f", configuration]


class PgBouncer(Proxy):
    """Transaction pooling in front of the primary."""

    name = "pgbouncer"

    def has_prepared(self):
        return tuple(int(part) for part in self.version.split(".")[:2]) >= (1, 21)

    def command(self):
        users = self.write("users.txt", f'"{ROLE}" "{PASSWORD}"\n')
        prepared = "max_prepared_statements = 200" if self.has_prepared() else ""
        configuration = self.write("pgbouncer.ini", f"""[databases]
{DATABASE} = host=127.0.0.1 port={self.fleet.primary} user={ROLE} password={PASSWORD}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {self.port}
unix_socket_dir =
auth_type = {self.fleet.authentication}
auth_file = {users}
pool_mode = transaction
default_pool_size = {POOL_SIZE}
max_client_conn = {CLIENTS_MAX}
{prepared}
""")
        return not_as_root([self.program, configuration])

    def lacks(self, load):
        if "prepared" in load and not self.has_prepared():
            return f"{self.version} has no prepared statements in transaction pooling"
        return None


class Pgyard(Proxy):
    """pgyard with its defaults, splitting over primary and replicas."""

    workers = line = ""

    def __init__(self, fleet, directory, program, options):
        self.options = options
        super().__init__(fleet, directory, program)

    def command(self):
        workers = f"workers = {self.workers}" if self.workers else ""
        replicas = ", ".join(f'"127.0.0.1:{port}"' for port in self.fleet.replicas)
        auth = 'auth = "trust"' if self.fleet.authentication == "trust" else ""
        lines = [*self.options.setting, self.line]
        if not any(line.startswith("pool_size") for line in lines):
            lines.append(f"pool_size = {POOL_SIZE}")
        extra = "\n".join(lines)
        configuration = self.write("pgyard.toml", f"""listen = "127.0.0.1:{self.port}"
http = "off"
{workers}
[limits]
max_clients = {CLIENTS_MAX}
[databases.{DATABASE}]
user = "{ROLE}"
password = "{PASSWORD}"
sslmode = "disable"
{auth}
primary = "127.0.0.1:{self.fleet.primary}"
replicas = [{replicas}]
{extra}
[databases.{DATABASE}.users.{ROLE}]
password = "{PASSWORD}"
""")
        return [self.program, "--config", configuration]


def yardsticks():
    """Name and program of those that are installed. HAPROXY_BIN and PGBOUNCER_BIN name others."""
    for kind in (HaProxy, PgBouncer):
        program = os.environ.get(f"{kind.name.upper()}_BIN") or shutil.which(kind.name, path=os.environ["PATH"] + ":/usr/sbin")
        if program:
            yield kind, program
        else:
            print(f"{kind.name} is not installed: left out")


def pgyard_kinds(name, options):
    """The pgyards to be measured of one program: one for each number of workers and each variant of the settings."""
    several = [count for count in options.workers.split(",") if count]
    for workers in several or [""]:
        for variant in ["", *options.variant]:
            label, _, line = variant.partition(":")
            parts = [name, f"{workers}w" if len(several) > 1 else "", label]
            yield type("NamedPgyard", (Pgyard,), {"name": "-".join(filter(None, parts)), "workers": workers, "line": line})


def start_all(fleet, directory, options):
    """Starts every target, `direct` first. Those that were started are in the list even if one fails."""
    targets = [Direct(fleet)]
    try:
        for kind, program in yardsticks():
            targets.append(kind(fleet, directory, program))
        for given in options.pgyard or ["target/release/pgyard"]:
            name, _, program = given.rpartition("=")
            if not os.access(program, os.X_OK):
                raise BenchFailed(f"{program} is not there: make build")
            for kind in pgyard_kinds(name or "pgyard", options):
                targets.append(kind(fleet, directory, str(Path(program).resolve()), options))
    except BaseException:
        stop_all(targets)
        raise
    return targets


def stop_all(targets):
    for target in targets:
        target.stop()
