"""Browsing shows what lies in a queue, with a consumer or waiting, and leaves it as it was."""

from client import Client, assert_empty, equal, run

QUEUE = "/queue/browsed"


def browse(arguments, **headers):
    """What a browser is shown, up to the end."""
    browser = Client(arguments)
    browser.subscribe(QUEUE, browser="true", **headers)
    shown = []
    while "browser" not in (message := browser.message()).headers:
        shown.append(message)
    end = {"subscription": "1", "destination": QUEUE, "message-id": "0", "browser": "end"}
    equal({name: message.headers.get(name) for name in end}, end)
    equal(message.body, b"")
    if shown and headers.get("ack", "auto") != "auto":
        browser.ack(shown[0])  # nothing comes of it
    browser.unsubscribe(QUEUE)
    browser.disconnect()
    return [message.body for message in shown]


def scenario(arguments):
    equal(browse(arguments), [])
    producer = Client(arguments)
    for body, priority in [("m1", "4"), ("m2", "9"), ("m3", "4"), ("m4", "0")]:
        producer.send(QUEUE, body, persistent="true", priority=priority)
    producer.send(QUEUE, "m5", persistent="false")
    producer.begin("open")
    producer.send(QUEUE, "uncommitted", persistent="true", transaction="open")

    consumer = Client(arguments)
    consumer.subscribe(QUEUE, ack="client-individual", activemq__prefetchSize="1")
    first = consumer.message()
    equal(first.body, b"m2")
    everything = [b"m2", b"m1", b"m3", b"m5", b"m4"]
    for ack in ["auto", "client", "client-individual"]:
        equal(browse(arguments, ack=ack), everything)
    equal(browse(arguments, activemq__prefetchSize="1"), everything)

    consumer.ack(first)
    for body in everything[1:]:
        message = consumer.message()
        equal((message.body, message.headers.get("redelivered", "false")), (body, "false"))
        consumer.ack(message)
    consumer.disconnect()
    producer.abort("open")
    producer.disconnect()
    equal(browse(arguments), [])
    assert_empty(arguments, QUEUE)


if __name__ == "__main__":
    run(scenario)
