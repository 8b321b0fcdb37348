"""One run of one suite: a fresh fleet, pgyard in front of it or not, and what the suite printed."""

import os
import shutil
import subprocess
import threading
import time
import urllib.request

from bench_process import Background, BenchFailed, as_server_user, free_ports, not_as_root, server_user

# One file that hangs must not hang the run. Ours take two minutes on two cores.
LIMIT_SECONDS = 30 * 60
HEARTBEAT_SECONDS = 30
# pgyard's settings in each mode.
SETTINGS = {
    "session": 'pool_mode = "session"\nfresh_connections = true\n',
    "session-reused": 'pool_mode = "session"\n',
    "transaction": 'pool_mode = "transaction"\n',
}


class Run:
    """A run in one mode: "direct", or one of SETTINGS."""

    def __init__(self, suites, suite, mode, options):
        self.suites = suites
        self.suite = suite
        self.mode = mode
        self.options = options
        self.directory = options.directory / f"{suite}-{mode}"
        self.started = []
        self.primary = None
        self.pgyard = None
        self.http = None
        self.metrics = ""

    def execute(self):
        """Runs it; returns what each file printed, by the file's name."""
        self.directory.mkdir()
        if user := server_user():
            shutil.chown(self.directory, user)
        try:
            port = self.start()
            self.run_driver(port)
        finally:
            self.stop()
        return {path.stem: path.read_bytes() for path in sorted((self.directory / "out" / "results").glob("*.out"))}

    # The fleet.

    def start(self):
        ports = free_ports(3 + self.options.replicas)
        self.primary = ports[0]
        primary = self.directory / "primary"
        self.program("initdb", "-D", primary, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync")
        as_server_user(["tee", "-a", str(primary / "postgresql.conf")], input=self.settings())
        self.start_server(primary, ports[0])
        for number, port in enumerate(ports[3:], 1):
            data = self.directory / f"replica{number}"
            self.program("pg_basebackup", "-h", self.directory, "-p", ports[0], "-U", "postgres", "-D", data, "-R", "-X", "stream",
                         "-C", "-S", f"replica{number}", "-c", "fast", "--no-sync")
            self.start_server(data, port)
        if self.mode == "direct":
            return ports[0]
        self.start_pgyard(ports)
        return ports[1]

    def settings(self):
        # What the suite's own temporary server has (max_prepared_transactions), and what makes it quick.
        return (f"listen_addresses = '127.0.0.1'\nunix_socket_directories = '{self.directory}'\nfsync = off\nmax_connections = 200\n"
                "max_prepared_transactions = 2\nmax_wal_size = 4GB\n")

    def start_server(self, data, port):
        self.started.append(data)
        # Its name, so that a statement's host can be read from the log.
        self.program("pg_ctl", "-D", data, "-l", f"{data}.log", "-w", "-s", "-o", f"-p {port} -c cluster_name={data.name}", "start")

    def start_pgyard(self, ports):
        hosts = ", ".join(f'"127.0.0.1:{port}"' for port in ports[3:])
        configuration = self.directory / "pgyard.toml"
        configuration.write_text(f'listen = "127.0.0.1:{ports[1]}"\nhttp = "127.0.0.1:{ports[2]}"\n'
                                 f'[defaults]\nauth = "trust"\n{SETTINGS[self.mode]}'
                                 f'[databases."*"]\nprimary = "postgres://postgres@127.0.0.1:{ports[0]}"\nreplicas = [{hosts}]\n')
        command = [str(self.options.pgyard), "serve", "--config", str(configuration)]
        self.http = ports[2]
        self.pgyard = Background("pgyard", command, self.directory, ports[1])

    def program(self, name, *arguments):
        return as_server_user([str(self.suites.programs / name), *map(str, arguments)], cwd=self.directory)

    def stop(self):
        if self.pgyard:
            self.metrics = scrape(self.http)
            self.pgyard.stop()
        for data in reversed(self.started):
            try:
                self.program("pg_ctl", "-D", data, "-m", "immediate", "-w", "-s", "stop")
            except BenchFailed as failure:
                print(f"regress: {failure}")

    # The driver.

    def run_driver(self, port):
        """pg_regress or pg_isolation_regress, until it ends; a file that differs from expected/ is not a failure here."""
        copy = self.directory / "suite"
        shutil.copytree(self.suites.source / "src" / "test" / self.suite, copy)
        libraries = self.directory / "libraries"
        shutil.copytree(self.suites.libraries, libraries)
        out = self.directory / "out"
        out.mkdir()
        if user := server_user():
            for path in [out, copy, *copy.rglob("*")]:
                shutil.chown(path, user)
        common = [f"--inputdir={copy}", f"--outputdir={out}", f"--bindir={self.suites.programs}", "--host=127.0.0.1", f"--port={port}",
                  "--user=postgres"]
        environment = dict(os.environ)
        if self.suite == "regress":
            command = [self.suites.drivers / "regress" / "pg_regress", *common, f"--dlpath={libraries}", "--max-concurrent-tests=20",
                       "--encoding=UTF8", "--no-locale"]
            schedule = "parallel_schedule"
        else:
            # It looks for isolationtester beside itself, and that for the server's libraries.
            command = [self.suites.drivers / "isolation" / "pg_isolation_regress", *common]
            schedule = "isolation_schedule"
            environment["LD_PRELOAD"] = str(libraries / "backend_pid.so")
        chosen = self.options.files
        command += chosen if chosen else [f"--schedule={copy / schedule}"]
        watched = Heartbeat(f"{self.suite}, {self.mode}", out / "results")
        log = (self.directory / "driver.log").open("w")
        with watched, log:
            process = subprocess.Popen(not_as_root([str(word) for word in command]), stdout=log, stderr=log, cwd=out,
                                       start_new_session=True, env=environment)
            try:
                process.wait(LIMIT_SECONDS)
            except BaseException:
                os.killpg(process.pid, 15)
                raise
        if not (out / "results").exists():
            raise BenchFailed(f"{command[0]} did not start:\n{(self.directory / 'driver.log').read_text()[-2000:]}")


class Step:
    """Says when something begins, and how long it took."""

    def __init__(self, what):
        self.what = what
        self.begin = time.monotonic()

    def __enter__(self):
        print(f"{self.what} ...", flush=True)

    def __exit__(self, *_):
        print(f"{self.what}: {time.monotonic() - self.begin:.0f} s", flush=True)


class Heartbeat:
    """Says now and then how many files have been run."""

    def __init__(self, what, results):
        self.what = what
        self.results = results
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.beat, daemon=True)

    def beat(self):
        while not self.ended.wait(HEARTBEAT_SECONDS):
            print(f"regress: {self.what}: {self.count()} files so far", flush=True)

    def count(self):
        return len(list(self.results.glob("*.out")))

    def __enter__(self):
        self.begin = time.monotonic()
        print(f"regress: {self.what} ...", flush=True)
        self.thread.start()

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()
        print(f"regress: {self.what}: {self.count()} files in {time.monotonic() - self.begin:.0f} s", flush=True)


def scrape(port):
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read().decode()
    except OSError:
        return ""
