"""Throughput and latency with many clients, which stay connected from round to round.

pgbench logs its clients in anew for each run, one after the other, and its clock runs meanwhile; with thousands of them there is
more log-in than load in a run, and it looks at every one of its sockets at each turn. This client waits with epoll, and logs in once.
"""

import random
import select
import time

from bench_client import StreamClient, query
from bench_report import median, shown
from bench_servers import DATABASE, PASSWORD, ROLE

READY = b"Z\0\0\0\5I"
ACCOUNTS = 100_000
# Statements are made beforehand: making one takes longer than sending it.
STATEMENTS = 4096


class Crowd:
    """Connections through one target."""

    def __init__(self, target, count):
        self.target = target
        self.clients = [StreamClient(target.port, ROLE, PASSWORD, DATABASE, 4096) for _ in range(count)]
        self.sockets = {client.socket.fileno(): client.socket for client in self.clients}
        for one in self.sockets.values():
            one.setblocking(False)

    def close(self):
        for client in self.clients:
            client.close()

    def run(self, count, seconds, statements):
        """`count` of them send one statement after the other; returns the latencies in seconds and the time it took."""
        sockets = dict(list(self.sockets.items())[:count])
        poll, now = select.epoll(), time.perf_counter
        for number in sockets:
            poll.register(number, select.EPOLLIN)
        latencies, sent, turn = [], {}, 0
        began = now()
        end = began + seconds
        for number, one in sockets.items():
            turn += 1
            sent[number] = now()
            one.send(statements[turn % STATEMENTS])
        under_way = count
        while under_way:
            for number, _ in poll.poll(30):
                one = sockets[number]
                if not one.recv(8192).endswith(READY):
                    continue
                at = now()
                latencies.append(at - sent[number])
                if at < end:
                    turn += 1
                    sent[number] = at
                    one.send(statements[turn % STATEMENTS])
                else:
                    under_way -= 1
        poll.close()
        return latencies, now() - began


def measure(crowd, count, options, statements):
    background = crowd.target.background
    before = background.cpu_seconds() if background else 0
    latencies, elapsed = crowd.run(count, options.seconds, statements)
    used = background.cpu_seconds() - before if background else 0
    latencies.sort()
    return {"tps": len(latencies) / elapsed, "cpu_us": used * 1e6 / len(latencies),
            "p50_us": latencies[len(latencies) // 2] * 1e6, "p99_us": latencies[len(latencies) * 99 // 100] * 1e6}


def many(options, targets, _measure):
    """The numbers of clients that `--clients` names, in turn: throughput by that with the first, p99 by the yardstick's."""
    statements = [query(f"SELECT abalance FROM pgbench_accounts WHERE aid = {random.randint(1, ACCOUNTS)}") for _ in range(STATEMENTS)]
    crowds = [Crowd(target, max(options.clients)) for target in targets if target.pools]
    taken = {}
    for number in range(options.rounds):
        begin = number % len(crowds)
        for crowd in crowds[begin:] + crowds[:begin]:
            for count in options.clients:
                taken.setdefault((crowd.target.name, count), []).append(measure(crowd, count, options, statements))
    for crowd in crowds:
        crowd.close()
    yardstick, first = options.yardstick or crowds[0].target.name, options.clients[0]
    rows = []
    for count in options.clients:
        for crowd in crowds:
            mine, base = taken[crowd.target.name, count], taken[crowd.target.name, first]
            yard = taken[yardstick, count]
            row = {"clients": count, "target": crowd.target.name, **{key: median([one[key] for one in mine]) for key in mine[0]}}
            row["tps_by_first"] = median([one["tps"] / other["tps"] for one, other in zip(mine, base)])
            for key in ("tps", "cpu_us", "p50_us", "p99_us"):
                row[f"{key}_by_yard"] = median([one[key] / max(other[key], 1e-9) for one, other in zip(mine, yard)])
            rows.append(row)
    columns = ("tps", "tps_by_first", "tps_by_yard", "cpu_us", "cpu_us_by_yard", "p50_us", "p50_us_by_yard", "p99_us", "p99_us_by_yard")
    titles = ("tps", "/first", "/yard", "CPU us/txn", "/yard", "p50 us", "/yard", "p99 us", "/yard")
    print(f"\n{'clients':>7}  {'target':14}" + "".join(f"{title:>11}" for title in titles))
    for row in rows:
        cells = "".join(f"{shown(row[key], 2 if '_by_' in key else 0 if key != 'cpu_us' else 1):>11}" for key in columns)
        print(f"{row['clients']:>7}  {row['target']:14}{cells}")
    return rows
