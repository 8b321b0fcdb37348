"""Processes that a benchmark starts: how they are started and stopped, and what they cost, read from /proc."""

import os
import pwd
import re
import resource
import signal
import socket
import subprocess
import time
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
PAGE_KIB = os.sysconf("SC_PAGE_SIZE") // 1024


class BenchFailed(Exception):
    """Something that the benchmark needs did not work; the text says what."""


def server_user():
    """The user that servers run as: PostgreSQL and PgBouncer refuse to be root. None is ourselves."""
    if os.getuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    raise BenchFailed("run it as a user that is not root: there is neither a user postgres nor nobody")


def not_as_root(command):
    """The command, as the user that servers run as."""
    user = server_user()
    if not user:
        return command
    # runuser goes back to the user's own limit of open files, 1024: PgBouncer would stop at a thousand clients without a word to them.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    files = "unlimited" if most == resource.RLIM_INFINITY else most
    return ["runuser", "-u", user, "--", "prlimit", f"--nofile={files}", *command]


def as_server_user(command, **options):
    """Runs a command as that user to its end; returns what it printed."""
    # pg_ctl leaves a server behind that keeps its standard error open.
    done = subprocess.run(not_as_root(command), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, **options)
    if done.returncode != 0:
        raise BenchFailed(f"{' '.join(command)} failed ({done.returncode})")
    return done.stdout


def free_ports(count):
    """Ports that nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


class Background:
    """A program that runs until it is stopped and listens on a port."""

    def __init__(self, name, command, directory, port, environment=None):
        log = Path(directory, f"{name}.log")
        with log.open("w") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True,
                                            env={**os.environ, **(environment or {})})
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port), 0.2).close()
                return
            except OSError:
                time.sleep(0.05)
        self.stop()
        raise BenchFailed(f"{name} did not start:\n{log.read_text()[-2000:]}")

    def stop(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()

    def family(self):
        """Its process id and those of all its descendants."""
        children = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
        found, todo = [], [self.process.pid]
        while todo:
            found.append(todo.pop())
            todo += children.get(found[-1], [])
        return found

    def cpu_seconds(self):
        """User and system time so far, of all its processes."""
        ticks = 0
        for pid in self.family():
            try:
                fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            ticks += int(fields[11]) + int(fields[12])
        return ticks / TICKS_PER_SECOND

    def resident_kib(self, pids):
        """Resident memory of these processes: cheaper to read than what follows, but shared pages count for each."""
        total = 0
        for pid in pids:
            try:
                pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
            except OSError:
                continue
            total += int(pages) * PAGE_KIB
        return total

    def memory_kib(self):
        """Proportional set size, so that pages shared by its processes count once."""
        total = 0
        for pid in self.family():
            try:
                found = re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M)
            except OSError:
                continue
            total += int(found[1]) if found else 0
        return total
