"""A PostgreSQL client that looks at nothing it need not look at, so that it is never what limits a transfer."""

import asyncio
import base64
import hashlib
import hmac
import os
import socket
import struct

from bench_process import BenchFailed

CHUNK = 1 << 20
READY_LEN = 6


def message(tag, body):
    return tag + struct.pack("!I", len(body) + 4) + body


def query(sql):
    return message(b"Q", sql.encode() + b"\0")


def startup(user, database):
    body = struct.pack("!I", 196608) + f"user\0{user}\0database\0{database}\0\0".encode()
    return struct.pack("!I", len(body) + 4) + body


class Scram:
    """The client's side of SCRAM-SHA-256. Derived keys are kept: a storm of log-ins is not to measure the client's arithmetic."""

    derived = {}

    def __init__(self, password):
        self.password = password
        self.bare = "n=,r=" + base64.b64encode(os.urandom(18)).decode()

    def first(self):
        text = ("n,," + self.bare).encode()
        return message(b"p", b"SCRAM-SHA-256\0" + struct.pack("!I", len(text)) + text)

    def final(self, server_first):
        fields = dict(part.split("=", 1) for part in server_first.split(","))
        key = (self.password, fields["s"], int(fields["i"]))
        if key not in self.derived:
            salted = hashlib.pbkdf2_hmac("sha256", self.password.encode(), base64.b64decode(fields["s"]), key[2])
            self.derived[key] = hmac.digest(salted, b"Client Key", "sha256")
        client_key = self.derived[key]
        bare = "c=biws,r=" + fields["r"]
        signed = f"{self.bare},{server_first},{bare}".encode()
        signature = hmac.digest(hashlib.sha256(client_key).digest(), signed, "sha256")
        proof = bytes(a ^ b for a, b in zip(client_key, signature))
        return message(b"p", f"{bare},p={base64.b64encode(proof).decode()}".encode())


def login_step(scram, tag, body):
    """What to send after a message of the log-in; None when it is over."""
    if tag == b"E":
        raise BenchFailed(f"log-in failed: {body!r}")
    if tag == b"Z":
        return None
    if tag == b"R":
        (code,) = struct.unpack("!I", body[:4])
        if code == 10:
            return scram.first()
        if code == 11:
            return scram.final(body[4:].decode())
        if code not in (0, 12):
            raise BenchFailed(f"the server wants authentication method {code}")
    return b""


class StreamClient:
    """A blocking connection."""

    def __init__(self, port, user, password, database, chunk=CHUNK):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.settimeout(120)
        self.buffer = bytearray(chunk)
        self.socket.sendall(startup(user, database))
        scram = Scram(password)
        while (reply := login_step(scram, *self.read_message())) is not None:
            self.socket.sendall(reply)

    def read_exactly(self, count):
        data = b""
        while len(data) < count:
            try:
                more = self.socket.recv(count - len(data))
            except TimeoutError as silence:
                raise BenchFailed(f"port {self.socket.getpeername()[1]} said nothing for two minutes") from silence
            if not more:
                raise BenchFailed("the connection was closed")
            data += more
        return data

    def read_message(self):
        head = self.read_exactly(5)
        return head[:1], self.read_exactly(struct.unpack("!I", head[1:])[0] - 4)

    def drain(self):
        """Reads to the end of an answer without looking at it; returns its length in bytes. Its rows must not end like a
        ReadyForQuery."""
        total, tail = 0, b""
        view = memoryview(self.buffer)
        while not (tail[:5] == b"Z\0\0\0\5"):
            count = self.socket.recv_into(view)
            if count == 0:
                raise BenchFailed("the connection was closed in the middle of an answer")
            total += count
            tail = (tail + bytes(view[max(0, count - READY_LEN):count]))[-READY_LEN:]
        return total

    def run(self, sql):
        self.socket.sendall(query(sql))
        return self.drain()

    def copy_in(self, sql, line, size):
        """COPY FROM STDIN in messages of 8 KiB, as PostgreSQL's own programs send them."""
        self.socket.sendall(query(sql))
        while True:
            tag, body = self.read_message()
            if tag == b"G":
                break
            if tag == b"E":
                raise BenchFailed(f"{sql}: {body!r}")
        data = line * (8192 // len(line))
        block = message(b"d", data) * (CHUNK // len(data))
        sent = 0
        while sent < size:
            self.socket.sendall(block)
            sent += len(block)
        self.socket.sendall(message(b"c", b""))
        self.drain()
        return sent

    def bind(self, sql, size):
        """One statement with one parameter of `size` bytes."""
        self.socket.sendall(message(b"P", b"\0" + sql.encode() + b"\0\0\0"))
        head = b"\0\0\0\0\0\1" + struct.pack("!I", size)
        self.socket.sendall(b"B" + struct.pack("!I", len(head) + size + 2 + 4) + head)
        block, sent = b"x" * CHUNK, 0
        while sent < size:
            sent += self.socket.send(memoryview(block)[:size - sent])
        self.socket.sendall(b"\0\0" + message(b"E", b"\0\0\0\0\0") + message(b"S", b""))
        self.drain()
        return size

    def close(self):
        self.socket.close()


async def log_in(port, user, password, database):
    """One log-in of a storm; the connection stays open."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=4096)
    writer.write(startup(user, database))
    scram = Scram(password)
    while True:
        head = await reader.readexactly(5)
        reply = login_step(scram, head[:1], await reader.readexactly(struct.unpack("!I", head[1:])[0] - 4))
        if reply is None:
            return reader, writer
        writer.write(reply)


async def storm(port, user, password, database, count, until):
    """Logs `count` clients in at once, again and again, until `until()`; returns how many log-ins there were."""
    done = 0
    while not until():
        connections = await asyncio.gather(*(log_in(port, user, password, database) for _ in range(count)), return_exceptions=True)
        good = [one for one in connections if not isinstance(one, BaseException)]
        if not good:
            raise BenchFailed(f"no log-in of {count} succeeded: {connections[0]!r}")
        done += len(good)
        for _, writer in good:
            writer.close()
    return done
