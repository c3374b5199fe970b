#!/usr/bin/env python3
"""BatonMQ on a database that others press: throughput and storage over time, a picture for each cell.

  benches/pressure/pressure.py --harness DIRECTORY [--database postgres|mariadb] [--cells transaction,readers,…]
                               [--seconds 120] [--backlog 10000] [--size 1024] [--broker target/release/batonmq]
                               [--pictures DIRECTORY]

Each cell is a load for so many seconds, of which the middle half is under pressure (`cells.py` says what is done), the
first and the last quarter are not. Every message is verified. Outages, seconds in which no message was taken in, are left
out of the rate under pressure and told beside it. CPU is that of broker and database: before, in the first and in the
last minute of the pressure (or fifth, if that is shorter), and after it; storage that of the messages' table with its
indexes (of the log, where a slot keeps that) at the end of each part. DIRECTORY is the harness (see benches/README.md).
"""

import argparse
import json
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from cells import CELLS, kills, restarts, slot, tenfold
from databases import chart
from databases.broker import Broker
from databases.harness import SERVERS, Harness
from sampler import Sampler

QUEUE = "--kind queue --persistent true --confirm receipt --prefetch 100".split()
STEADY = "--producers 8 --consumers 8 --window 100 --ack client --ack-every 10".split()
FAILOVER = "--mode failover --producers 8 --consumers 8 --window 1 --ack client-individual --ack-receipt".split()
# Of the cell that presses by load: what one loader sends a second before ten times as much comes.
RATE = 2_000
# A rate is "after the pressure" from here on.
RECOVERY_SECONDS = 5
# What is compared of the pressure's begin and end.
WINDOW_SECONDS = 60


class Stage:
    """What a cell works with."""

    def __init__(self, arguments, cell, home):
        self.server = SERVERS[arguments.database]
        self.harness = Harness(arguments.harness, home)
        self.backlog, self.size, self.seconds = arguments.backlog, arguments.size, arguments.seconds
        self.span = arguments.seconds / 2
        self.rate = RATE
        self.cell, self.home = cell, home
        self.binary = arguments.broker.resolve()
        self.brokers, self.results = [], []

    def open(self):
        self.harness.start(self.server.name)
        if self.cell is slot and self.server.ask("SHOW wal_level", "postgres") != [["logical"]]:
            self.server.client("ALTER SYSTEM SET wal_level = 'logical'", "postgres", check=True)
            self.harness.stop(self.server.name)
            self.harness.start(self.server.name)
        self.server.make_anew()
        count = 3 if self.cell in (kills, restarts) else 1
        self.brokers = [Broker(self.binary, self.home, self.server.url, number) for number in range(count)]
        self.brokers[0].start().wait_for_service()
        for standby in self.brokers[1:]:
            standby.start()

    def close(self):
        for broker in self.brokers:
            broker.stop()
        if self.cell is slot:  # what comes next is measured with the server's defaults again
            self.server.client("ALTER SYSTEM RESET wal_level", "postgres", check=True)
            self.harness.stop(self.server.name)
            self.harness.start(self.server.name)

    def bytes_on_disk(self):
        return self.server.bytes_of_log() if self.cell is slot else self.server.bytes_on_disk("bench")

    def load(self, seconds, rate=None):
        """Starts one load generator."""
        kind = FAILOVER + ["--rotate"] if self.cell is kills else STEADY
        pace = ["--backlog", self.backlog] if self.cell is not kills else []
        pace += ["--rate", rate // 8] if rate else []
        urls = [part for broker in self.brokers[1:] for part in ("--url", broker.address)]
        destination = ["--destination", f"pressure.{len(self.results)}.{time.monotonic_ns()}", "--drain-timeout", 60]
        span = ["--size", self.size, "--seconds", seconds, "--io-timeout-ms", 60_000]
        return self.harness.load(self.brokers[0], *urls, *QUEUE, *kind, *pace, *destination, *span)

    def finish(self, loader):
        """Waits for a load generator; what it found."""
        out, err = loader.communicate(timeout=self.seconds + 300)
        self.results.append(json.loads(out.splitlines()[-1]) if out.strip() else {"ok": False, "errors": [err[-400:]]})

    def run(self):
        """The load, and what presses in the middle of it."""
        loader = self.load(self.seconds, self.rate if self.cell is tenfold else None)
        sampler = Sampler(self)
        sampler.start()
        time.sleep(self.seconds / 4)
        begin = sampler.samples[-1]["at"]
        with self.cell(self):
            time.sleep(self.span)
            end = sampler.samples[-1]["at"]
        self.finish(loader)
        terms = [broker.metrics().get("batonmq_terms_total", 0) for broker in self.brokers]
        if self.cell is restarts and terms != [1, 0, 0]:
            self.results.append({"ok": False, "errors": [f"another master, or another term: {terms}"]})
        return sampler.stop(), begin, end


def main():
    arguments = parse()
    cells = [cell for cell in CELLS[arguments.database] if not arguments.cells or cell.__name__ in arguments.cells]
    print("| cell | a second before | under pressure | first and last of it | after | outages | CPU, µs | storage, MB |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    clean = True
    for cell in cells:
        with tempfile.TemporaryDirectory(prefix="batonmq-pressure-") as home:
            stage = Stage(arguments, cell, home)
            stage.open()
            try:
                samples, begin, end = stage.run()
            finally:
                stage.close()
            clean &= report(arguments, cell, stage, samples, begin, end)
    sys.exit(not clean)


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--harness", type=Path, required=True)
    parser.add_argument("--database", choices=SERVERS, default="postgres")
    parser.add_argument("--cells", type=lambda text: text.split(","))
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--backlog", type=int, default=10_000)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--broker", type=Path, default=Path("target/release/batonmq"))
    parser.add_argument("--pictures", type=Path)
    return parser.parse_args()


def report(arguments, cell, stage, samples, begin, end):
    loaded = [sample for sample in samples if sample["at"] <= stage.seconds]
    before = [sample for sample in loaded if 3 < sample["at"] <= begin]
    under = [sample for sample in loaded if begin < sample["at"] <= end]
    after = [sample for sample in loaded if sample["at"] > end + RECOVERY_SECONDS]
    outage = lambda sample: sample["answered"] and not sample["taken"]
    outages = sum(sample["seconds"] for sample in under if outage(sample))
    window = min(WINDOW_SECONDS, (end - begin) / 5)
    first = [sample for sample in under if sample["at"] <= begin + window]
    last = [sample for sample in under if sample["at"] > end - window]
    usual, pressed, recovered = rate(before), rate([sample for sample in under if not outage(sample)]), rate(after)
    share = lambda part: f"{part:,.0f} ({part / usual:.2f})"
    ends = " → ".join(f"{rate(part):,.0f}" for part in (first, last))
    cpu = " → ".join(f"{cpu_of_message(part):.1f}" for part in (before, first, last, after))
    storage = " → ".join(f"{part[-1]['storage'] / 1e6:,.0f}" for part in (before, under, after) if part)
    rates = f"{usual:,.0f} | {share(pressed)} | {ends} | {share(recovered)}"
    print(f"| {cell.__name__} | {rates} | {outages:.0f} s | {cpu} | {storage} |", flush=True)
    for result in stage.results:
        if not result["ok"]:
            print(f"NOT CLEAN: {result.get('verify')} {result['errors'][:3]}", flush=True)
    if arguments.pictures:
        draw(arguments, cell, samples, begin, end)
    return all(result["ok"] for result in stage.results)


def rate(samples):
    """Messages a second; who did not answer tells of its messages in the next sample."""
    seconds = sum(sample["seconds"] for sample in samples)
    return sum(sample["taken"] for sample in samples) / seconds if seconds else 0.0


def cpu_of_message(samples):
    """Of broker and database, in microseconds."""
    messages = sum(sample["taken"] for sample in samples)
    return sum(sum(sample["cpu"].values()) for sample in samples) / messages * 1e6 if messages else 0.0


def draw(arguments, cell, samples, begin, end):
    curve = lambda of: smooth([(sample["at"], of(sample)) for sample in samples])
    panels = [
        (
            "Messages a second",
            [
                ("sent", curve(lambda sample: sample["taken"] / sample["seconds"])),
                ("acknowledged", curve(lambda sample: sample["acknowledged"] / sample["seconds"])),
            ],
        ),
        ("Storage, MB", [("on disk", curve(lambda sample: sample["storage"] / 1e6))]),
    ]
    title = f"{arguments.database}: {cell.__name__}"
    picture = chart.lines(title, panels, [(begin, end, re.split(r"[.,;]", cell.__doc__)[0])], samples[-1]["at"])
    arguments.pictures.mkdir(parents=True, exist_ok=True)
    (arguments.pictures / f"{arguments.database}-{cell.__name__}.svg").write_text(picture)


def smooth(points, span=5):
    """Means of so many seconds: what a second has depends on when it begins."""
    parts = [points[at : at + span] for at in range(0, len(points), span)]
    return [tuple(statistics.mean(values) for values in zip(*part)) for part in parts]


if __name__ == "__main__":
    main()
