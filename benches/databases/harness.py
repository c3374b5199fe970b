"""The harness that stands outside of the project: its load generator, its peers, and its database servers."""

import json
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Server:
    """A database server of the harness, and how to ask it something."""

    name: str
    port: int
    backend: str

    @property
    def url(self):
        if self.backend == "postgres":
            return f"postgres://postgres@127.0.0.1:{self.port}/batonmq_bench"
        return f"mysql://root@127.0.0.1:{self.port}/batonmq_bench"

    def ask(self, sql, database="batonmq_bench"):
        """The rows of an answer, as lists of text."""
        return [line.split("\t") for line in self.client(sql, database, check=True).stdout.splitlines()]

    def client(self, sql, database="batonmq_bench", check=False):
        return subprocess.run(self.command(database) + [self.option, sql], text=True, capture_output=True, check=check)

    def session(self, database="batonmq_bench"):
        """A session that is left open; what is written to it is done there."""
        pipe = dict(stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True)
        return subprocess.Popen(self.command(database), **pipe)

    @property
    def option(self):
        return "-c" if self.backend == "postgres" else "-e"

    def command(self, database):
        if self.backend == "postgres":
            where = ["-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-d", database]
            return ["psql", "-qAtX", "-F", "\t", "-v", "ON_ERROR_STOP=1", *where]
        return ["mariadb", "-NB", "-h", "127.0.0.1", "-P", str(self.port), "-u", "root", database]

    def make_anew(self):
        """An empty database."""
        if self.backend == "postgres":
            self.client("DROP DATABASE IF EXISTS batonmq_bench WITH (FORCE)", "postgres", check=True)
            self.client("CREATE DATABASE batonmq_bench", "postgres", check=True)
        else:
            self.client("DROP DATABASE IF EXISTS batonmq_bench", "mysql", check=True)
            self.client("CREATE DATABASE batonmq_bench", "mysql", check=True)

    def bytes_on_disk(self, group):
        """What the group's messages take."""
        if self.backend == "postgres":
            sql = f"SELECT pg_total_relation_size('{group}.message')"
        else:
            sql = (
                "SELECT sum(file_size) FROM information_schema.innodb_sys_tablespaces"
                f" WHERE name LIKE 'batonmq_bench/{group}%message'"
            )
        rows = self.ask(sql)
        return float(rows[0][0]) if rows and rows[0][0] not in ("", "NULL") else 0.0

    def bytes_of_log(self):
        """What PostgreSQL keeps of its log."""
        return float(self.ask("SELECT sum(size) FROM pg_ls_waldir()", "postgres")[0][0])


SERVERS = {
    "postgres": Server("postgres", 47432, "postgres"),
    "mariadb": Server("mariadb", 47306, "mysql"),
}


class Harness:
    """Where it lies, and what it is asked for."""

    def __init__(self, directory, results):
        self.peers = Path(directory) / "peers"
        self.home = Path(os.environ.get("PEERS", Path(os.environ.get("TMPDIR", "/tmp")) / "peers"))
        self.results = Path(results)
        self.loader = Path(os.environ.get("BENCH", self.home / "target/release/stompbench"))

    def start(self, process):
        self.peer("start", process)

    def stop(self, process):
        self.peer("stop", process)

    def peer(self, *arguments):
        subprocess.run([self.peers / "peer.sh", *arguments], check=True, stdout=subprocess.DEVNULL)

    def pid_file(self, process):
        return self.home / "run" / f"{process}.pid"

    def compare(self, cases, peers, runs, broker, database):
        """Brokers in turn, a run each, `runs` times; broker is BatonMQ's."""
        watch = f"broker={broker.pid_file} db={self.pid_file(database)}"
        environment = dict(os.environ, RAW=self.results, CUSTOM_URL=broker.address, CUSTOM_WATCH=watch)
        command = [self.peers / "run.sh", ",".join(cases), ",".join(peers), str(runs)]
        subprocess.run(command, env=environment, check=True)

    def records(self):
        """What was measured, and what failed to be: (case, peer, result, whether others took much of the machine)."""
        files = [self.results / name for name in ("raw.jsonl", "failed.jsonl")]
        lines = [line for file in files if file.exists() for line in file.read_text().splitlines()]
        return [(record["case"], record["peer"], record["result"], record["noisy"]) for record in map(json.loads, lines)]

    def load(self, broker, *arguments):
        """The load generator, started; what it prints is one object of JSON."""
        command = [self.loader, "--json", "--url", broker.address, *map(str, arguments)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_until(happens, what, seconds=60):
    end = time.monotonic() + seconds
    while not happens():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} takes more than {seconds} s")
        time.sleep(0.05)
