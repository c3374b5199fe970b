"""Acknowledges what arrives, with receipts, until the broker is gone; tells what arrived, each ACK before it is sent, and
each ACK that was confirmed."""

from client import GONE, Client, run, say


class Consumer(Client):
    def on_message(self, frame):
        say(f"received {frame.body.decode()}")
        super().on_message(frame)

    def on_receipt(self, frame):
        super().on_receipt(frame)
        name = frame.headers["receipt-id"]
        if name.startswith("ack-"):
            say(f"acked {name.removeprefix('ack-')}")

    def on_disconnected(self):
        super().on_disconnected()
        self.messages.put(None)


def scenario(arguments):
    consumer = Consumer(arguments)
    consumer.subscribe("/queue/load", ack="client-individual")
    say("subscribed")
    while (message := consumer.messages.get()) is not None:
        key = "ack" if arguments.version == "1.2" else "message-id"
        rest = {"subscription": "1"} if arguments.version == "1.1" else {}
        say(f"acking {message.body.decode()}")
        try:
            receipt = f"ack-{message.body.decode()}"
            consumer.connection.ack(message.headers[key], receipt=receipt, **rest)
        except GONE:
            pass  # what arrived before the end is still told
    assert consumer.errors.empty(), consumer.errors.get().headers


if __name__ == "__main__":
    run(scenario)
