"""What the scenarios share: a stomp.py connection whose frames wait in queues until a scenario asks for them.

A scenario is run as `python NAME.py --address HOST:PORT --version 1.2`. It asserts, and ends with 0 if all held.
It waits for events; PATIENCE is only the net below.
"""

import argparse
import itertools
import queue
import sys
import threading
import time

import stomp

PATIENCE = 60.0

_voice = threading.Lock()

CONNECTIONS = {"1.0": stomp.StompConnection10, "1.1": stomp.StompConnection11, "1.2": stomp.StompConnection12}

# What stomp.py raises when it sends and the connection is gone; the second if it goes in that very moment.
GONE = (OSError, AttributeError, stomp.exception.NotConnectedException)


class Client(stomp.ConnectionListener):
    """One connection. Bodies stay bytes."""

    def __init__(self, arguments, client_id=None, heart_beat=None, connect=True):
        self.version = arguments.version
        self.messages = queue.Queue()
        self.errors = queue.Queue()
        self.heart_beats = queue.Queue()
        self.receipts = []
        self.connects = 0
        self.connected_headers = None
        self.lost = threading.Event()
        self._greeted = threading.Event()
        self._news = threading.Condition()
        self._numbers = itertools.count(1)
        brokers = [address.rsplit(":", 1) for address in arguments.address.split(",")]
        brokers = [(host, int(port)) for host, port in brokers]
        options = {"auto_decode": False, "reconnect_attempts_max": -1, "reconnect_sleep_max": 0.5}
        if heart_beat is not None:
            options["heartbeats"] = heart_beat
            options["heart_beat_receive_scale"] = 5  # a busy machine is no silent broker
        self.connection = CONNECTIONS[self.version](brokers, **options)
        self.connection.set_listener("scenario", self)
        if arguments.ca is not None:
            self.connection.set_ssl(brokers, ca_certs=arguments.ca)
        self._credentials = (arguments.login, arguments.passcode)
        self._connect_headers = {"client-id": client_id} if client_id is not None else {}
        if connect:
            self.connect()

    def connect(self):
        """Connects, also once more after the connection was lost; tries until the broker is there."""
        deadline = time.monotonic() + PATIENCE
        while True:
            self._greeted.clear()
            self.lost.clear()
            try:
                self.connection.connect(*self._credentials, wait=True, headers=self._connect_headers)
                break
            except (*GONE, stomp.exception.ConnectFailedException):
                # A dying broker may still have taken the connection. An ERROR is an answer, and final.
                if not self.errors.empty() or time.monotonic() > deadline:
                    raise
        assert self._greeted.wait(PATIENCE), "no CONNECTED"
        self.connects += 1

    # What stomp.py calls, on its own thread.

    def on_connected(self, frame):
        self.connected_headers = frame.headers
        self._greeted.set()

    def on_message(self, frame):
        self.messages.put(frame)

    def on_error(self, frame):
        self.errors.put(frame)
        with self._news:
            self._news.notify_all()

    def on_heartbeat(self):
        self.heart_beats.put(None)

    def on_receipt(self, frame):
        with self._news:
            self.receipts.append(frame.headers["receipt-id"])
            self._news.notify_all()

    def on_disconnected(self):
        with self._news:
            self.lost.set()
            self._news.notify_all()

    # What scenarios call.

    def receipt(self):
        """A new name for a receipt."""
        return f"r{next(self._numbers)}"

    def confirmed(self, receipt):
        """Waits for this receipt; an ERROR or a lost connection instead fails."""
        with self._news:
            self._news.wait_for(
                lambda: receipt in self.receipts or self.lost.is_set() or not self.errors.empty(), PATIENCE
            )
            if receipt in self.receipts:
                return
        if not self.errors.empty():
            raise AssertionError(f"an ERROR instead of receipt {receipt}: {self.errors.get().headers}")
        raise AssertionError(f"no receipt {receipt}; connection lost: {self.lost.is_set()}")

    def send(self, destination, body, **headers):
        """Sends and waits for the receipt. Underscores in names of headers stand for hyphens."""
        receipt = self.receipt()
        self.send_unconfirmed(destination, body, receipt=receipt, **headers)
        self.confirmed(receipt)

    def send_unconfirmed(self, destination, body, **headers):
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        self.connection.send(destination, body, headers=headers)

    def subscribe(self, destination, ack="auto", id="1", **headers):
        """Subscribes and waits for the receipt. Double underscores in names of headers stand for dots."""
        receipt = self.receipt()
        headers = {name.replace("__", "."): value for name, value in headers.items()}
        self.connection.subscribe(destination, id=id, ack=ack, headers={"receipt": receipt, **headers})
        self.confirmed(receipt)

    def unsubscribe(self, destination, id="1", **headers):
        receipt = self.receipt()
        headers = {"receipt": receipt, **{name.replace("__", "."): value for name, value in headers.items()}}
        if self.version == "1.0":
            self.connection.unsubscribe(destination=destination, id=id, headers=headers)
        else:
            self.connection.unsubscribe(id, headers=headers)
        self.confirmed(receipt)

    def message(self):
        """The next message."""
        try:
            return self.messages.get(timeout=PATIENCE)
        except queue.Empty:
            errors = [] if self.errors.empty() else [self.errors.get().headers]
            raise AssertionError(f"no message; errors: {errors}; lost: {self.lost.is_set()}") from None

    def bodies(self, count):
        """The bodies of the next messages."""
        return [self.message().body for _ in range(count)]

    def error(self):
        """The next ERROR."""
        return self.errors.get(timeout=PATIENCE)

    def ack(self, message, transaction=None):
        self._settle(self.connection.ack, message, transaction)

    def nack(self, message, transaction=None):
        self._settle(self.connection.nack, message, transaction)

    def _settle(self, verb, message, transaction):
        receipt = self.receipt()
        if self.version == "1.0":
            verb(message.headers["message-id"], transaction=transaction, receipt=receipt)
        elif self.version == "1.1":
            verb(message.headers["message-id"], message.headers["subscription"], transaction, receipt)
        else:
            verb(message.headers["ack"], transaction, receipt)
        self.confirmed(receipt)

    def begin(self, transaction):
        receipt = self.receipt()
        self.connection.begin(transaction, headers={"receipt": receipt})
        self.confirmed(receipt)

    def commit(self, transaction):
        receipt = self.receipt()
        self.connection.commit(transaction, headers={"receipt": receipt})
        self.confirmed(receipt)

    def abort(self, transaction):
        receipt = self.receipt()
        self.connection.abort(transaction, headers={"receipt": receipt})
        self.confirmed(receipt)

    def disconnect(self):
        """Says goodbye and waits until that is confirmed."""
        self.connection.disconnect(receipt="goodbye")
        self.confirmed("goodbye")

    def drop(self):
        """Ends the connection without a word."""
        self.connection.transport.disconnect_socket()


def assert_empty(arguments, destination):
    """Nothing is left in the queue: a marker sent now is what a new consumer gets first."""
    with_marker = Client(arguments)
    with_marker.send(destination, "marker")
    with_marker.subscribe(destination)
    first = with_marker.message()
    assert first.body == b"marker", f"{destination} still holds {first.body!r} {first.headers}"
    with_marker.disconnect()


def equal(found, expected):
    """Fails with both sides."""
    assert found == expected, f"found {found!r}, expected {expected!r}"


def say(line):
    """Tells the test that started this."""
    with _voice:  # scenarios and listeners have threads of their own
        print(line, flush=True)


def heard():
    """Waits for a line from the test that started this."""
    return sys.stdin.readline().strip()


def run(scenario):
    """Runs one scenario with the arguments of the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", required=True, help="HOST:PORT, or several with commas between them")
    parser.add_argument("--version", default="1.2", choices=sorted(CONNECTIONS))
    parser.add_argument("--ca", help="certificate that signed the broker's; makes the connection TLS")
    parser.add_argument("--login")
    parser.add_argument("--passcode")
    parser.add_argument("--heart-beat", type=int, help="period of heart-beats both ways, if there are to be any [ms]")
    scenario(parser.parse_args())
    say("ok")
