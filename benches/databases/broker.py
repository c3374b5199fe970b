"""BatonMQ's own brokers in a bench: real processes on one database."""

import re
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

from .harness import wait_until

GROUP = "bench"


class Broker:
    """One process, and what it says of itself."""

    def __init__(self, binary, home, url, number=0, backend=None):
        self.binary = binary
        self.home = Path(home)
        self.address = f"127.0.0.1:{free_port()}"
        self.console = f"127.0.0.1:{free_port()}"
        self.config = self.home / f"broker-{number}.toml"
        self.pid_file = self.home / f"broker-{number}.pid"
        self.log = self.home / f"broker-{number}.log"
        store = f'url = "{url}"\ngroup = "{GROUP}"' if url else ""
        backend = backend or ("postgres" if url.startswith("postgres") else "mysql")
        self.config.write_text(
            f"""broker_name = "bench-{number}"
data = "{self.home}/data-{number}"
[store]
backend = "{backend}"
{store}
[console]
listen = "{self.console}"
[[connectors]]
name = "stomp"
uri = "stomp://{self.address}"
"""
        )

    def start(self):
        with self.log.open("a") as log:
            command = [self.binary, "start", "--config", self.config, "--log-level", "warn"]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        self.pid_file.write_text(f"{self.process.pid}\n")
        return self

    def serves(self):
        host, port = self.address.split(":")
        with socket.socket() as client:
            client.settimeout(1)
            return client.connect_ex((host, int(port))) == 0

    def wait_for_service(self):
        wait_until(self.serves, "the start of a broker")
        return self

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(60)

    def metrics(self):
        """Counters and gauges by name, all labels summed up; nothing while the process is away."""
        try:
            with urllib.request.urlopen(f"http://{self.console}/metrics", timeout=2) as answer:
                text = answer.read().decode()
        except (urllib.error.URLError, OSError):
            return {}
        sums = {}
        for name, value in re.findall(r"^(batonmq_\w+)(?:\{[^}]*\})? ([0-9.eE+-]+)$", text, re.MULTILINE):
            sums[name] = sums.get(name, 0.0) + float(value)
        return sums


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
