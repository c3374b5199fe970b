"""Sends numbered persistent messages with receipts until the broker is gone; tells each confirmed number."""

import itertools
import threading

from client import GONE, PATIENCE, Client, run, say

WINDOW = 50


class Producer(Client):
    def __init__(self, arguments):
        self.window = threading.Semaphore(WINDOW)
        super().__init__(arguments)

    def on_receipt(self, frame):
        say(f"confirmed {frame.headers['receipt-id']}")
        self.window.release()

    def on_disconnected(self):
        super().on_disconnected()
        self.window.release()


def scenario(arguments):
    producer = Producer(arguments)
    for number in itertools.count(1):
        producer.window.acquire()
        if producer.lost.is_set():
            break
        try:
            producer.send_unconfirmed("/queue/load", f"{number}", persistent="true", receipt=f"{number}")
        except GONE:
            break
    assert producer.lost.wait(PATIENCE)  # receipts that came before the end are still told
    assert producer.errors.empty(), producer.errors.get().headers


if __name__ == "__main__":
    run(scenario)
