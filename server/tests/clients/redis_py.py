#!/usr/bin/env python3
"""Exercises a server with redis-py, over RESP2 and RESP3: every command, as that client sends and parses it.

    python3 -m venv venv && venv/bin/pip install 'redis>=5'
    venv/bin/python server/tests/clients/redis_py.py [host:port]

The server's data is deleted. Prints "N passed, 0 failed" and exits with 0, or shows what failed and exits with 1.
"""

import datetime
import sys
import threading
import time
import traceback

import redis

FAR = 4102444800  # 2100-01-01, in seconds


def strings(r):
    assert r.set("a", "1") is True
    assert r.get("a") == b"1"
    assert r.get("missing") is None
    assert r.set("a", "2", nx=True) is None
    assert r.set("b", "2", xx=True) is None
    assert r.set("a", "2", get=True) == b"1"
    assert r.set("a", "3", ex=100) and 0 < r.ttl("a") <= 100
    assert r.set("a", "3", px=100_000) and 0 < r.pttl("a") <= 100_000
    assert r.set("a", "3", exat=FAR) and r.expiretime("a") == FAR
    assert r.set("a", "4", keepttl=True) and r.expiretime("a") == FAR
    assert r.set("a", "4", pxat=FAR * 1000 + 1) and r.pexpiretime("a") == FAR * 1000 + 1
    assert r.setnx("n", 1) and not r.setnx("n", 2)
    assert r.setex("s", 100, "v") and r.psetex("s", 100_000, "v")
    assert r.getset("a", "5") == b"4"
    assert r.getdel("a") == b"5" and r.get("a") is None
    assert r.set("g", "v") and r.getex("g", exat=FAR) == b"v" and r.expiretime("g") == FAR
    assert r.getex("g", persist=True) == b"v" and r.ttl("g") == -1
    assert r.mset({"k1": "v1", "k2": "v2"}) and r.mget("k1", "none", "k2") == [b"v1", None, b"v2"]
    assert not r.msetnx({"k2": "x", "k3": "y"}) and r.msetnx({"k3": "x", "k4": "y"})
    assert r.append("app", "Hello") == 5 and r.append("app", " World") == 11
    assert r.strlen("app") == 11 and r.getrange("app", -5, -1) == b"World" and r.substr("app", 0, 4) == b"Hello"
    assert r.setrange("app", 6, "Redis") == 11 and r.get("app") == b"Hello Redis"
    blob = bytes(range(256)) * 4096
    assert r.set(b"\x00\r\n", blob) and r.get(b"\x00\r\n") == blob


def numbers(r):
    assert r.incr("n") == 1 and r.incrby("n", 9) == 10 and r.decr("n") == 9 and r.decrby("n", 4) == 5
    assert abs(r.incrbyfloat("f", 2.5) - 2.5) < 1e-9 and abs(r.incrbyfloat("f", -1) - 1.5) < 1e-9
    r.set("text", "abc")
    raises(redis.ResponseError, "not an integer", r.incr, "text")
    raises(redis.ResponseError, "not a valid float", r.incrbyfloat, "text", 1)


def bits(r):
    assert r.setbit("b", 7, 1) == 0 and r.getbit("b", 7) == 1
    r.set("k", "foobar")
    assert r.bitcount("k") == 26 and r.bitcount("k", 1, 1) == 6 and r.bitcount("k", 5, 30, "BIT") == 17
    r.set("p", b"\xff\xf0\x00")
    assert r.bitpos("p", 0) == 12 and r.bitpos("p", 1, 2) == -1
    r.set("x", "abc")
    assert r.bitop("NOT", "y", "x") == 3 and r.bitop("AND", "z", "x", "y") == 3 and r.get("z") == b"\0\0\0"
    field = r.bitfield("field", default_overflow="SAT")
    assert field.set("u8", 0, 250).incrby("u8", 0, 10).get("u8", 0).execute() == [0, 255, 255]
    assert r.bitfield_ro("field", "u8", 0) == [255]


def keys(r):
    r.mset({"a": 1, "b": 2, "c": 3})
    assert r.exists("a", "b", "none") == 2 and r.type("a") == b"string" and r.type("none") == b"none"
    assert r.touch("a", "none") == 1 and r.dbsize() == 3 and r.randomkey() in (b"a", b"b", b"c")
    assert sorted(r.keys("*")) == [b"a", b"b", b"c"] and sorted(r.scan_iter("*", count=1)) == [b"a", b"b", b"c"]
    cursor, found = r.scan(0, match="a", count=1000, _type="string")
    assert cursor == 0 and found == [b"a"]
    assert r.rename("a", "d") and not r.renamenx("d", "b") and r.copy("d", "e") and not r.copy("d", "e")
    assert r.copy("d", "e", replace=True)
    raises(redis.ResponseError, "no such key", r.rename, "none", "other")
    assert r.delete("b", "none") == 1 and r.unlink("c") == 1
    payload = r.dump("d")
    assert r.restore("restored", 0, payload) and r.get("restored") == r.get("d")
    raises(redis.ResponseError, "BUSYKEY", r.restore, "restored", 0, payload)
    assert r.restore("restored", FAR * 1000, payload, replace=True, absttl=True) and r.expiretime("restored") == FAR
    assert r.object("encoding", "d") in (b"int", "int") and r.object("refcount", "d") >= 1 and r.object("idletime", "d") >= 0
    assert r.memory_usage("d") > 0
    assert r.flushdb() and r.dbsize() == 0 and r.flushall(asynchronous=True)


def deadlines(r):
    r.set("a", 1)
    assert r.ttl("a") == -1 and r.ttl("none") == -2
    assert r.expire("a", 100) and 0 < r.ttl("a") <= 100 and not r.expire("a", 50, gt=True) and r.expire("a", 50, lt=True)
    assert r.pexpire("a", 100_000) and r.expireat("a", FAR) and r.pexpireat("a", FAR * 1000)
    assert r.expireat("a", datetime.datetime(2100, 1, 1, tzinfo=datetime.timezone.utc)) and r.expiretime("a") == FAR
    assert not r.expire("a", 100, nx=True) and r.expire("a", 100, xx=True)
    assert r.persist("a") and not r.persist("a")
    r.set("short", 1, px=1)
    until(lambda: r.get("short") is None)
    assert r.exists("short") == 0


def pipelines(r):
    with r.pipeline(transaction=False) as pipe:
        for at in range(1000):
            pipe.set(f"k{at}", at).incr("n").get(f"k{at}")
        replies = pipe.execute()
    assert len(replies) == 3000 and replies[2::3] == [str(at).encode() for at in range(1000)]
    assert replies[1::3] == list(range(1, 1001))
    with r.pipeline(transaction=False) as pipe:
        replies = pipe.set("text", "x").incr("text").get("text").execute(raise_on_error=False)
    assert isinstance(replies[1], redis.ResponseError) and replies[2] == b"x"


def compare_and_set(r):
    r.set("lock", "one")
    assert r.execute_command("CAS", "lock", "two", "three") == 0
    assert r.execute_command("CAS", "lock", "one", "two") == 1 and r.get("lock") == b"two"
    assert r.execute_command("CAS", "none", "one", "two") == -1
    assert r.execute_command("DELIFEQ", "lock", "one") == 0 and r.execute_command("DELIFEQ", "lock", "two") == 1
    assert r.execute_command("CAD", "lock", "two") == -1


def connection(r):
    assert r.ping() and r.echo("hello") == b"hello"
    with r.client() as one:
        assert one.client_setname("tester") and one.client_getname() in (b"tester", "tester")
        mine = one.client_id()
        info = one.client_info()
        assert int(info["id"]) == mine and info["name"] == "tester"
        assert any(int(client["id"]) == mine for client in one.client_list())
        assert one.client_no_evict("ON") and one.client_unblock(mine) == 0
        assert one.client_pause(1, all=False) and one.client_unpause()
        assert one.select(0)
    raises(redis.ResponseError, "No such client", r.client_kill, "1.2.3.4:5")
    assert r.client_kill_filter(_id=999_999_999) == 0


def server(r):
    info = r.info()
    assert info["redis_version"].startswith("7.") and info["loading"] == 0 and info["role"] == "master"
    assert r.info("clients")["connected_clients"] >= 1 and "cmdstat_ping" in r.info("commandstats")
    assert r.config_get("maxclients")["maxclients"] == "10000" and r.config_set("timeout", 0) and r.config_resetstat()
    assert isinstance(r.time()[0], int) and r.lastsave() is not None
    assert r.slowlog_reset() and r.slowlog_len() >= 0 and isinstance(r.slowlog_get(), list)
    assert r.wait(0, 0) == 0
    assert r.command_count() == len(r.command()) and len(r.command_list()) >= r.command_count()
    assert r.command_getkeys("MSET", "a", 1, "b", 2) in ([b"a", b"b"], ["a", "b"])
    assert r.execute_command("COMMAND DOCS", "get") and len(r.execute_command("COMMAND INFO", "get", "set")) == 2


def lcs(r):
    r.mset({"one": "ohmytext", "two": "mynewtext"})
    assert r.lcs("one", "two") == b"mytext" and r.lcs("one", "two", len=True) == 6
    assert r.lcs("one", "two", idx=True)


def many_clients(r):
    def work():
        for _ in range(100):
            r.incr("shared")

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert r.get("shared") == b"800"


def raises(kind, words, call, *args):
    try:
        call(*args)
    except kind as error:
        assert words in str(error), error
        return
    raise AssertionError(f"no {kind.__name__} from {call.__name__}{args}")


def until(is_so):
    end = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < end, "it never happened"


CASES = [strings, numbers, bits, keys, deadlines, pipelines, compare_and_set, connection, server, lcs, many_clients]


def main():
    host, _, port = (sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:6379").rpartition(":")
    passed = failed = 0
    for protocol in (2, 3):
        client = redis.Redis(host=host or "127.0.0.1", port=int(port), protocol=protocol)
        for case in CASES:
            try:
                client.flushall()
                case(client)
                passed += 1
            except Exception:
                failed += 1
                print(f"FAILED over RESP{protocol}: {case.__name__}")
                traceback.print_exc()
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
