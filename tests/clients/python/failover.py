"""A producer and a consumer with a list of brokers, while the master is killed or its database restarts.

The producer sends one message after the other, each until its receipt is there; the consumer acknowledges each one, and
waits for that receipt. At the end no message with a receipt is missing, nothing whose ACK had a receipt came again, and
what was not redelivered came in the order in which it was sent. How often the two had to connect is told.
"""

import queue
import threading

from client import GONE, PATIENCE, Client, equal, heard, run, say

QUEUE = "/queue/failover"
PERSISTENT = {"persistent": "true"}
LOST = (AssertionError, *GONE)

# Heart-beats that are awaited in a row: longer than a client waits for one until it gives its connection up.
BEATS = 8


def connect(arguments):
    period = arguments.heart_beat
    return Client(arguments, heart_beat=period and (period, period))


class Producer(threading.Thread):
    """Sends 0, 1, 2, …; each again until it is confirmed."""

    def __init__(self, arguments):
        super().__init__(daemon=True)
        self.client = connect(arguments)
        self.confirmed = 0
        self.done = threading.Event()
        self.failure = None

    def run(self):
        try:
            while not self.done.is_set():
                self.send(str(self.confirmed))
                self.confirmed += 1
        except BaseException as failure:
            self.failure = failure

    def send(self, body):
        while True:
            try:
                return self.client.send(QUEUE, body, **PERSISTENT)
            except LOST:
                assert self.client.errors.empty(), self.client.errors.get().headers
                assert self.client.lost.wait(PATIENCE), "a receipt that never came over a good connection"
                self.client.connect()


class Consumer(threading.Thread):
    """Takes and acknowledges what comes."""

    def __init__(self, arguments):
        super().__init__(daemon=True)
        self.client = connect(arguments)
        self.seen = set()
        self.acked = set()
        self.last = -1
        self.done = threading.Event()
        self.failure = None
        self.client.subscribe(QUEUE, ack="client-individual")

    def run(self):
        try:
            while not self.done.is_set():
                self.take()
        except BaseException as failure:
            self.failure = failure

    def take(self):
        try:
            message = self.client.messages.get(timeout=0.05)
        except queue.Empty:
            if self.client.lost.is_set():
                self.begin_again()
            return
        self.check(message)
        try:
            self.client.ack(message)
        except LOST:
            return self.begin_again()
        self.acked.add(message.headers["message-id"])

    def check(self, message):
        identity, number = message.headers["message-id"], int(message.body)
        assert identity not in self.acked, f"{identity} was acknowledged, with a receipt, and came again"
        self.seen.add(number)
        if message.headers.get("redelivered") != "true":
            assert number >= self.last, f"{number} came behind {self.last}"
            self.last = number

    def begin_again(self):
        """What came over the old connection and was not acknowledged comes again."""
        assert self.client.errors.empty(), self.client.errors.get().headers
        while True:
            assert self.client.lost.wait(PATIENCE), "an ACK without a receipt over a good connection"
            self.client.connect()
            self.client.messages = queue.Queue()
            try:
                return self.client.subscribe(QUEUE, ack="client-individual")
            except LOST:
                assert self.client.errors.empty(), self.client.errors.get().headers


def scenario(arguments):
    producer, consumer = Producer(arguments), Consumer(arguments)
    producer.start()
    consumer.start()
    say("under way")
    # Each line asks for some progress, or for heart-beats; none ends it.
    while asked := heard():
        if asked == "heart-beats":
            hear_heart_beats(producer.client, consumer.client)
            continue
        until = (producer.confirmed + 20, len(consumer.acked) + 20)
        wait_until(lambda: (producer.confirmed >= until[0]) and len(consumer.acked) >= until[1], producer, consumer)
        say("it goes on")
    producer.done.set()
    producer.join(PATIENCE)
    # An ACK without a receipt may have counted, so that its message does not come again: that it came is enough.
    wait_until(lambda: set(range(producer.confirmed)) <= consumer.seen, producer, consumer)
    consumer.done.set()
    consumer.join(PATIENCE)
    equal((producer.failure, consumer.failure), (None, None))
    say(f"{producer.confirmed} confirmed, {len(consumer.acked)} acknowledged")
    say(f"connected {producer.client.connects + consumer.client.connects} times")


def hear_heart_beats(*clients):
    for client in clients:
        client.heart_beats = queue.Queue()
    for client in clients:
        for _ in range(BEATS):
            client.heart_beats.get(timeout=PATIENCE)
    say("heard them")


def wait_until(holds, producer, consumer):
    pause = threading.Event()
    for _ in range(int(PATIENCE * 50)):
        for failure in (producer.failure, consumer.failure):
            if failure is not None:
                raise failure
        if holds():
            return
        pause.wait(0.02)
    raise AssertionError(f"no progress: {producer.confirmed} sent, {len(consumer.acked)} acknowledged")


if __name__ == "__main__":
    run(scenario)
