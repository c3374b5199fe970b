#!/usr/bin/env python3
"""ActiveMQ, Artemis and BatonMQ on the same database server, in turn, under the same load; every message verified.

  benches/compare/compare.py --harness DIRECTORY [--database postgres|mariadb] [--cases C,CB,B,A,TX10,F] [--runs 3]
                             [--broker target/release/batonmq] [--svg FILE]

DIRECTORY is the harness (see benches/README.md): its load generator, peers and servers have to be set up. Each line is
the median of the runs, with the least and the most, and how often BatonMQ's median is that of the peer.
"""

import argparse
import statistics
import sys
import tempfile
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
    "postgres": {"C": ["pg", "artemis-pg", "kahadb", "artemis"], "CB": ["pg", "artemis-pg"], "F": ["pg"]},
    "mariadb": {},
}
ACTIVEMQ = {"postgres": ["pg"], "mariadb": ["my"]}


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
        finally:
            broker.stop()
        report(arguments, harness.records())


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--harness", type=Path, required=True)
    parser.add_argument("--database", choices=SERVERS, default="postgres")
    parser.add_argument("--cases", type=lambda text: text.split(","), default=["C", "CB", "B", "A", "TX10", "F"])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--broker", type=Path, default=Path("target/release/batonmq"))
    parser.add_argument("--svg", type=Path)
    return parser.parse_args()


def report(arguments, records):
    rates, unclean = {}, []
    for case, peer, result in records:
        rate = result["received_per_s"] if case == "F-drain" else result["confirmed_per_s"]
        rates.setdefault(case, {}).setdefault(peer, []).append(rate)
        if not result["ok"]:
            unclean.append(f"{case} {peer}: {result['verify']} {result['errors'][:2]}")
    print(f"\n| work on {arguments.database} | broker | a second | BatonMQ's is |\n|---|---|---|---|")
    groups = []
    for case, peers in rates.items():
        own = statistics.median(peers["custom"])
        for peer, values in peers.items():
            median = statistics.median(values)
            ratio = f"{own / median:.1f} ×" if peer != "custom" and median else ""
            spread = f"{median:,.0f} ({min(values):,.0f} to {max(values):,.0f})"
            print(f"| {CASES.get(case, case)} | {NAMES.get(peer, peer)} | {spread} | {ratio} |")
        bars = [(NAMES.get(peer, peer), statistics.median(values)) for peer, values in peers.items()]
        groups.append((CASES.get(case, case), bars))
    print("\nEvery message of every run verified: none lost, doubled, reordered or corrupt." if not unclean else "")
    for line in unclean:
        print("NOT CLEAN:", line)
    if arguments.svg and groups:
        note = f"confirmed messages a second, 1 KiB, persistent; median of {arguments.runs} runs; each load has its scale"
        arguments.svg.write_text(chart.bars(f"The same {arguments.database}, the same load", groups, note))
    sys.exit(bool(unclean))


if __name__ == "__main__":
    main()
