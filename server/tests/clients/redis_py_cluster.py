#!/usr/bin/env python3
"""Writes to a cluster through redis-py's RedisCluster while its leaders are killed, and looks for every acknowledged write.

    target/release/holdfast cluster --nodes 3 --dir /somewhere --base-port 7001 &
    python3 -m venv venv && venv/bin/pip install 'redis>=5'
    venv/bin/python server/tests/clients/redis_py_cluster.py 127.0.0.1:7001 --kill 5

Keys that begin with `py:` are deleted. With `--kill N` the process that leads, which must run on this machine under a
supervisor that starts it again, as `holdfast cluster` does, is killed N times (SIGKILL; its id is what INFO says).

An operation is tried until it is acknowledged. At the end each is there at least once, and at most once more for each of its
attempts whose outcome is unknown; and no read gave less than was acknowledged, or read, before it began. Prints a line of
figures and exits with 0, or shows what is wrong and exits with 1.
"""

import argparse
import os
import signal
import sys
import threading
import time

import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.retry import Retry

PER_LIST = 1000
PAUSE = 0.01
# How long the cluster may take to serve again before it is taken for broken, in seconds.
PATIENCE = 60
# What says for certain that nothing was done.
ERRORS = (redis.RedisError, redis.exceptions.RedisClusterException, OSError)
REFUSED = (redis.exceptions.ClusterDownError, redis.exceptions.MovedError, redis.exceptions.ReadOnlyError,
           redis.exceptions.TryAgainError)


def connect(addresses):
    nodes = [address.rpartition(":") for address in addresses]
    # Each call is one attempt: the client's own retries would hide how often a command was sent.
    return RedisCluster(startup_nodes=[ClusterNode(host, int(port)) for host, _, port in nodes],
                        retry=Retry(NoBackoff(), 0), socket_timeout=1, socket_connect_timeout=1)


class Client:
    """A cluster client that is made anew when it can't go on; any of the addresses may be down."""

    def __init__(self, addresses, first):
        self.addresses, self.next, self.client = addresses, first % len(addresses), None

    def connected(self):
        """Whether there is somebody to ask."""
        if self.client is None:
            self.next = (self.next + 1) % len(self.addresses)
            try:
                self.client = connect(self.addresses[self.next :] + self.addresses[: self.next])
            except ERRORS:
                return False
        return True

    def attempt(self, *command):
        """The reply, by one attempt; call it when connected."""
        try:
            return self.client.execute_command(*command)
        except ERRORS:
            self.client.close()
            self.client = None
            raise


class Run:
    def __init__(self, addresses, writers):
        self.addresses, self.writers = addresses, writers
        self.stop = threading.Event()
        self.lock = threading.Lock()
        self.floors = [0] * writers
        self.acknowledged = self.unknown = self.reads = 0
        self.wrong = []
        # For each writer, per operation: is it acknowledged, how many attempts are unknown.
        self.books = [[] for _ in range(writers)]

    def floor(self, counter, value):
        with self.lock:
            self.floors[counter] = max(self.floors[counter], value)

    def write(self, writer):
        client, book = Client(self.addresses, writer), self.books[writer]
        while not self.stop.is_set():
            number = len(book)
            book.append([False, 0])
            if number % 2:
                command = ("INCR", f"py:count:{writer}")
            else:
                command = ("APPEND", f"py:list:{writer}:{number // PER_LIST}", f"{number},")
            while not self.stop.is_set():
                try:
                    if client.connected():
                        reply = client.attempt(*command)
                        if number % 2:
                            self.floor(writer, reply)
                        book[-1][0] = True
                        with self.lock:
                            self.acknowledged += 1
                        break
                except REFUSED:
                    pass
                except ERRORS:
                    book[-1][1] += 1
                    with self.lock:
                        self.unknown += 1
                time.sleep(PAUSE)

    def read(self, reader):
        client, counter = Client(self.addresses, reader), reader
        while not self.stop.is_set():
            counter = (counter + 1) % self.writers
            with self.lock:
                floor = self.floors[counter]
            try:
                value = int(client.attempt("GET", f"py:count:{counter}") or 0) if client.connected() else None
            except ERRORS:
                value = None
            if value is None:
                time.sleep(PAUSE)
                continue
            if value < floor:
                self.wrong.append(f"STALE: py:count:{counter} was {floor} before a read began that gave {value}")
            self.floor(counter, value)
            with self.lock:
                self.reads += 1

    def check(self):
        client = Client(self.addresses, 0)
        for writer, book in enumerate(self.books):
            least = sum(acknowledged for acknowledged, _ in book[1::2])
            most = least + sum(unknown for _, unknown in book[1::2])
            count = int(again(client, "GET", f"py:count:{writer}") or 0)
            if not least <= count <= most:
                self.wrong.append(f"py:count:{writer} is {count}; {least} were acknowledged, {most} at most sent")
            times = {}
            for part in range(len(book) // PER_LIST + 1):
                for item in (again(client, "GET", f"py:list:{writer}:{part}") or b"").split(b",")[:-1]:
                    times[int(item)] = times.get(int(item), 0) + 1
            for number in range(0, len(book), 2):
                acknowledged, unknown = book[number]
                found = times.pop(number, 0)
                if not acknowledged <= found <= acknowledged + unknown:
                    self.wrong.append(f"{number} of writer {writer} is there {found} times; acknowledged: {acknowledged}, "
                                      f"unknown attempts: {unknown}")
            if times:
                self.wrong.append(f"writer {writer} did not write {sorted(times)[:10]}")


def again(client, *command):
    end = time.monotonic() + PATIENCE
    while True:
        try:
            if client.connected():
                return client.attempt(*command)
        except ERRORS:
            if time.monotonic() > end:
                raise
        time.sleep(PAUSE)


def leader(addresses):
    """Where the leader's clients connect, and its process; None if nobody says that it leads."""
    for address in addresses:
        host, _, port = address.rpartition(":")
        try:
            node = redis.Redis(host=host, port=int(port), socket_timeout=1, retry=Retry(NoBackoff(), 0))
            if node.info("replication")["role"] == "master":
                return address, node.info("server")["process_id"]
        except ERRORS:
            pass
    return None


def wait(what, is_so):
    end = time.monotonic() + PATIENCE
    while not is_so():
        if time.monotonic() > end:
            raise SystemExit(f"not within {PATIENCE} s: {what}")
        time.sleep(PAUSE)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("node", help="host:port of any node")
    parser.add_argument("--writers", type=int, default=8)
    parser.add_argument("--readers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=3, help="of load before each kill, and at the end")
    parser.add_argument("--kill", type=int, default=0, metavar="N", help="kill the leader N times")
    options = parser.parse_args()
    addresses = [f"{node.host}:{node.port}" for node in connect([options.node]).get_nodes()]
    starter = connect([options.node])
    for key in starter.scan_iter("py:*", count=1000):
        starter.delete(key)
    run = Run(addresses, options.writers)
    threads = [threading.Thread(target=run.write, args=(writer,)) for writer in range(options.writers)]
    threads += [threading.Thread(target=run.read, args=(reader,)) for reader in range(options.readers)]
    for thread in threads:
        thread.start()
    gaps = []
    try:
        for _ in range(options.kill):
            time.sleep(options.seconds)
            wait("somebody leads", lambda: leader(addresses))
            victim, process = leader(addresses)
            os.kill(process, signal.SIGKILL)
            # What was on its way when the process died is behind us.
            time.sleep(0.05)
            killed, before = time.monotonic() - 0.05, run.acknowledged
            wait("the load goes on", lambda: run.acknowledged > before)
            gaps.append(time.monotonic() - killed)
            wait("the killed node is back", lambda: process_of(victim) not in (None, process))
        time.sleep(options.seconds)
    finally:
        run.stop.set()
        for thread in threads:
            thread.join()
    run.check()
    gap = f"; longest time without a success {max(gaps) * 1000:.0f} ms" if gaps else ""
    print(f"{run.acknowledged} acknowledged, {run.unknown} unknown, {run.reads} reads, {options.kill} leaders killed{gap}; "
          f"{len(run.wrong)} wrong")
    for story in run.wrong[:20]:
        print(story)
    return 1 if run.wrong else 0


def process_of(address):
    host, _, port = address.rpartition(":")
    try:
        return redis.Redis(host=host, port=int(port), socket_timeout=1, retry=Retry(NoBackoff(), 0)).info("server")[
            "process_id"]
    except ERRORS:
        return None


if __name__ == "__main__":
    sys.exit(main())
