#!/usr/bin/env python3
"""ActiveMQ, Artemis and BatonMQ on the same database server, in turn, under the same load; every message verified.

  benches/compare/compare.py --harness DIRECTORY [--database postgres|mariadb] [--cases C,CB,B,A,TX10,F] [--runs 3]
                             [--broker target/release/batonmq] [--svg FILE]

DIRECTORY is the harness (see benches/README.md): its load generator, peers and servers have to be set up. Each line is
the median of the runs, with the least and the most, and how often BatonMQ's median is that of the peer.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from databases import chart
from databases.broker import Broker
from databases.harness import SERVERS, Harness

CASES = {
    "C": "C: 8 producers, window 100, 8 consumers",
    "CB": "CB: C over a backlog of 10,000",
    "B": "B: 8 × 8, synchronous",
    "A": "A: 1 × 1, synchronous",
    "TX10": "TX10: transactions of 10",
    "F-fill": "F: filling without consumers",
    "F-drain": "F: draining that",
}
NAMES = {
    "custom": "BatonMQ",
    "pg": "ActiveMQ, JDBC",
    "my": "ActiveMQ, JDBC",
    "artemis-pg": "Artemis, JDBC",
    "kahadb": "ActiveMQ, KahaDB",
    "artemis": "Artemis, journal",
}
# Who is measured beside BatonMQ; on their own journals only where the goal says so.
PEERS = {
    "postgres": {"C": ["pg", "artemis-pg", "kahadb", "artemis"], "CB": ["pg", "artemis-pg"], "F": []},
    "mariadb": {"F": []},
}
ACTIVEMQ = {"postgres": ["pg"], "mariadb": ["my"]}


# One row in one statement, behind the fence: what a message of A costs the database at least.
FENCED_ROW = """
WITH fence AS MATERIALIZED (SELECT token FROM bench.baton WHERE id = 1 FOR SHARE)
INSERT INTO fenced_row (body) SELECT repeat('x', 1024) FROM fence;
"""

# What a bare insert inserts at a time, and how often.
BARE_ROWS = 500
BARE_BATCHES = 400


def main():
    arguments = parse()
    with tempfile.TemporaryDirectory(prefix="batonmq-compare-") as home:
        harness = Harness(arguments.harness, Path(home) / "results")
        server = SERVERS[arguments.database]
        harness.start(server.name)
        server.make_anew()
        broker = Broker(arguments.broker.resolve(), home, server.url).start().wait_for_service()
        try:
            for case in arguments.cases:
                peers = PEERS[server.name].get(case, ACTIVEMQ[server.name])
                harness.compare([case], ["custom", *peers], arguments.runs, broker, server.name)
            limit = limit_of_a(harness, server) if "A" in arguments.cases and server.backend == "postgres" else None
            fills = arguments.runs if "F" in arguments.cases else 0
            bare = [bare_inserts(harness, server, broker) for _ in range(fills)]
        finally:
            broker.stop()
        report(arguments, harness.records(), limit, bare)


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--harness", type=Path, required=True)
    parser.add_argument("--database", choices=SERVERS, default="postgres")
    parser.add_argument("--cases", type=lambda text: text.split(","), default=["C", "CB", "B", "A", "TX10", "F"])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--broker", type=Path, default=Path("target/release/batonmq"))
    parser.add_argument("--svg", type=Path)
    return parser.parse_args()


def limit_of_a(harness, server):
    """What one message after the other could reach: a fenced statement and an echo for each."""
    server.ask("CREATE TABLE fenced_row (number bigserial PRIMARY KEY, body text NOT NULL)")
    script = harness.results.parent / "fenced_row.sql"
    script.write_text(FENCED_ROW)
    command = ["pgbench", "-n", "-M", "prepared", "-c", "1", "-T", "5", "-f", script]
    where = ["-h", "127.0.0.1", "-p", str(server.port), "-U", "postgres", "batonmq_bench"]
    out = subprocess.run(command + where, text=True, capture_output=True, check=True).stdout
    statements = float(re.search(r"tps = ([0-9.]+)", out).group(1))
    echo = subprocess.run([harness.loader, "--mode", "echo", "--seconds", "5", "--json"], text=True, capture_output=True)
    echoes = json.loads(echo.stdout.splitlines()[-1])["confirmed_per_s"]
    return statements, echoes, 1 / (1 / statements + 1 / echoes)


def bare_inserts(harness, server, broker):
    """Rows a second that a table like the messages' takes from one session that inserts copies of messages' rows."""
    sample = ["--mode", "fill", "--messages", BARE_ROWS, "--size", 1024, "--destination", "sample"]
    harness.load(broker, *sample, "--window", 100).wait()
    messages, of_columns = ("bench.message", "table_schema = 'bench' AND table_name = 'message'")
    like = f"(LIKE {messages} INCLUDING ALL)"
    if server.backend == "mysql":
        messages, of_columns = ("bench_message", "table_schema = 'batonmq_bench' AND table_name = 'bench_message'")
        like = f"LIKE {messages}"
    server.client("DROP TABLE IF EXISTS sample, bare", check=True)
    latest = f"SELECT * FROM {messages} ORDER BY sequence DESC LIMIT {BARE_ROWS}"
    server.client(f"CREATE TABLE sample AS {latest}", check=True)
    server.client(f"CREATE TABLE bare {like}", check=True)
    [[rows, least, most]] = server.ask("SELECT count(*), min(sequence), max(sequence) FROM sample")
    assert int(rows) == BARE_ROWS, f"{rows} rows of messages, not {BARE_ROWS}"
    names = [name for [name] in server.ask(f"SELECT column_name FROM information_schema.columns WHERE {of_columns}")]
    others = ", ".join(name for name in names if name != "sequence")
    every = int(most) - int(least) + 1
    batches = (
        f"INSERT INTO bare (sequence, {others}) SELECT sequence + {number * every}, {others} FROM sample;\n"
        for number in range(BARE_BATCHES)
    )
    begin = time.monotonic()
    subprocess.run(server.command("batonmq_bench"), input="".join(batches), text=True, check=True)
    return BARE_ROWS * BARE_BATCHES / (time.monotonic() - begin)


def report(arguments, records, limit, bare):
    rates, unclean = {}, []
    for case, peer, result, noisy in records:
        if "failed" in result:
            unclean.append(f"{case} {peer}: {result['failed']}")
            continue
        if noisy:
            continue  # it was done again, if not too often
        rate = result["received_per_s"] if case == "F-drain" else result["confirmed_per_s"]
        rates.setdefault(case, {}).setdefault(peer, []).append(rate)
        if not result["ok"]:
            unclean.append(f"{case} {peer}: {result['verify']} {result['errors'][:2]}")
    print(f"\n| work on {arguments.database} | broker | a second | BatonMQ's is |\n|---|---|---|---|")
    groups = []
    for case, peers in rates.items():
        for peer, values in peers.items():
            if len(values) < arguments.runs:
                unclean.append(f"{case} {peer}: {len(values)} runs are good, of {arguments.runs}")
        own = statistics.median(peers.get("custom", [0.0]))
        for peer, values in peers.items():
            median = statistics.median(values)
            ratio = f"{own / median:.1f} ×" if peer != "custom" and median else ""
            spread = f"{median:,.0f} ({min(values):,.0f} to {max(values):,.0f})"
            print(f"| {CASES.get(case, case)} | {NAMES.get(peer, peer)} | {spread} | {ratio} |")
        bars = [(NAMES.get(peer, peer), statistics.median(values)) for peer, values in peers.items()]
        groups.append((CASES.get(case, case), bars))
    if limit and "A" in rates:
        share = statistics.median(rates["A"]["custom"]) / limit[2]
        print(f"\nThe limit of A: {limit[0]:,.0f} fenced one-row statements and {limit[1]:,.0f} echoes a second", end="")
        print(f" make {limit[2]:,.0f}; BatonMQ reached {share:.2f} of it.")
    if bare and "F-fill" in rates:
        share = statistics.median(rates["F-fill"]["custom"]) / statistics.median(bare)
        spread = f"{statistics.median(bare):,.0f} ({min(bare):,.0f} to {max(bare):,.0f})"
        print(f"\nBare inserts of {BARE_ROWS} such rows each: {spread} rows a second; F fills at {share:.2f} of that.")
    if records and not unclean:
        print("\nEvery message of every run verified: none lost, doubled, reordered or corrupt.")
    for line in unclean:
        print("NOT CLEAN:", line)
    if arguments.svg and groups:
        note = f"confirmed messages a second, 1 KiB, persistent; median of {arguments.runs} runs; each load has its scale"
        arguments.svg.write_text(chart.bars(f"The same {arguments.database}, the same load", groups, note))
    sys.exit(bool(unclean) or not records)


if __name__ == "__main__":
    main()
