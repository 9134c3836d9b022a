#!/usr/bin/env python3
"""Asks a Redis server for the replies in vector files and rewrites them.

usage: regenerate.py PORT FILE...      (the server's keys are flushed; use one of your own)

The format is described in ../command_vectors.rs. Requests marked with "!" are left alone.
"""
import re
import socket
import sys


class Connection:
    def __init__(self, port, resp3):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.stream = self.socket.makefile("rb")
        if resp3:
            self.ask([b"HELLO", b"3"])

    def ask(self, words):
        parts = [b"*%d\r\n" % len(words)] + [b"$%d\r\n%s\r\n" % (len(word), word) for word in words]
        self.socket.sendall(b"".join(parts))
        return self.reply()

    def reply(self):
        line = self.stream.readline()
        kind, reply = line[:1], line
        if kind in b"$=" and int(line[1:]) >= 0:
            reply += self.stream.read(int(line[1:]) + 2)
        elif kind in b"*~>%":
            count = max(int(line[1:]), 0) * (2 if kind == b"%" else 1)
            reply += b"".join(self.reply() for _ in range(count))
        return reply


def split(line):
    words = re.findall(r'(?:"(?:\\.|[^"\\])*"|[^" ])+', line)
    return [unquote(word) for word in words]


def unquote(word):
    def escaped(match):
        text = match.group(1)
        return {"r": "\r", "n": "\n"}.get(text) or (chr(int(text[1:], 16)) if text[0] == "x" else text)

    parts = re.findall(r'"((?:\\.|[^"\\])*)"|([^"]+)', word)
    plain = "".join(re.sub(r"\\(x..|.)", escaped, quoted) or bare for quoted, bare in parts)
    return plain.encode("latin-1")


def escape(reply):
    names = {13: "\\r", 10: "\\n", 92: "\\\\"}
    return "".join(names.get(byte) or (chr(byte) if 32 <= byte < 127 else f"\\x{byte:02x}") for byte in reply)


def main():
    port, files = int(sys.argv[1]), sys.argv[2:]
    connections = {">": Connection(port, False), "3>": Connection(port, True)}
    for name in files:
        lines = open(name).read().split("\n")
        output, own = [], False
        connections[">"].ask([b"FLUSHALL"])
        for line in lines:
            if line.startswith("= ") and not own:
                continue
            output.append(line)
            if line == "":
                connections[">"].ask([b"FLUSHALL"])
            mark, _, request = line.partition(" ")
            own = own if line.startswith("= ") else mark == "!" or mark == "3!"
            if mark in connections:
                output.append("= " + escape(connections[mark].ask(split(request))))
        open(name, "w").write("\n".join(output))


main()
