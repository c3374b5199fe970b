"""What brokers and database do, a sample each second."""

import os
import threading
import time
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


class Sampler(threading.Thread):
    """A sample: when, how long since the last, messages in and acknowledged meanwhile, bytes on disk, CPU seconds."""

    def __init__(self, stage):
        super().__init__(daemon=True)
        self.stage = stage
        self.samples = []
        self.ended = threading.Event()
        self.before = {}
        self.cpu_before = {}
        self.storage = 0.0

    def run(self):
        begin = last = time.monotonic()
        self.count(), self.cpu_used()
        while not self.ended.wait(1):
            taken, acknowledged, answered = self.count()
            now = time.monotonic()
            self.samples.append(
                {
                    "at": now - begin,
                    "seconds": now - last,
                    "taken": taken,
                    "acknowledged": acknowledged,
                    "answered": answered,
                    "storage": self.measure_storage(),
                    "cpu": self.cpu_used(),
                }
            )
            last = now

    def stop(self):
        self.ended.set()
        self.join()
        return self.samples

    def count(self):
        """Messages since the last time, and whether all brokers said; one that was started again counts from 0."""
        sums, answered = [0.0, 0.0], True
        for broker in self.stage.brokers:
            metrics = broker.metrics()
            answered &= bool(metrics) or broker.process.poll() is not None
            for index, name in enumerate(["batonmq_messages_received_total", "batonmq_messages_acknowledged_total"]):
                if name not in metrics:
                    continue
                before = self.before.get((broker, name), 0.0)
                sums[index] += metrics[name] - before if metrics[name] >= before else metrics[name]
                self.before[(broker, name)] = metrics[name]
        return *sums, answered

    def measure_storage(self):
        try:
            self.storage = self.stage.bytes_on_disk()
        except Exception:  # the server is away, or has no connection for us: as it was
            pass
        return self.storage

    def cpu_used(self):
        """Seconds of broker and database since the last time."""
        database = self.stage.harness.pid_file(self.stage.server.name)
        roots = {"broker": [broker.process.pid for broker in self.stage.brokers], "database": []}
        if database.exists():
            roots["database"] = [int(database.read_text().split()[0])]
        used = {}
        for name, pids in roots.items():
            total = sum(cpu_of_tree(pid) for pid in pids)
            used[name] = max(0.0, total - self.cpu_before.get(name, total))
            self.cpu_before[name] = total
        return used


def cpu_of_tree(root):
    """A process, its children, and those that have ended. Seconds."""
    total = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        pid, parent = int(stat.parent.name), int(fields[1])
        if root == pid:
            total += sum(map(int, fields[11:15]))
        elif root == parent:
            total += sum(map(int, fields[11:13]))
    return total / TICKS
