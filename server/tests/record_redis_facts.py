#!/usr/bin/env python3
"""Writes what a Redis server says of the commands that it shares with us, to be compared with our table.

usage: record_redis_facts.py PORT NAME... > redis_facts.tsv

A line for each command and subcommand, columns separated by tabs: name, arity, flags, first-last-step, categories,
tips, key specs (position, last, step and flags; several after a semicolon), since, group, version of deprecation.
"""
import json
import subprocess
import sys

port, names = sys.argv[1], sys.argv[2:]


def ask(what):
    return json.loads(subprocess.check_output(["redis-cli", "-p", port, "-3", "--json", "command", what, *names]))


def line(info, docs):
    name, arity, flags, first, last, step, categories, tips, key_specs, subcommands = info
    specs = []
    for spec in key_specs:
        find = spec["find_keys"]["spec"]
        index = spec["begin_search"]["spec"]["index"]
        specs.append(f"{index} {find['lastkey']} {find['keystep']} {' '.join(spec['flags'])}")
    columns = [name, arity, " ".join(flags), f"{first} {last} {step}", " ".join(categories), " ".join(tips), ";".join(specs)]
    columns += [docs["since"], docs["group"], docs.get("deprecated_since", "")]
    print("\t".join(map(str, columns)))
    for subcommand in sorted(subcommands):
        line(subcommand, docs["subcommands"][subcommand[0]])


infos, docs = ask("info"), ask("docs")
for info in infos:
    line(info, docs[info[0]])
