"""Transactions over sends and acks: whole or not at all."""

from client import Client, assert_empty, equal, run


def sends(arguments):
    producer = Client(arguments)
    consumer = Client(arguments)
    consumer.subscribe("/queue/sends")

    producer.begin("kept")
    producer.send("/queue/sends", "k1", persistent="true", transaction="kept")
    producer.begin("dropped")
    producer.send("/queue/sends", "d1", persistent="true", transaction="dropped")
    producer.send("/queue/sends", "k2", persistent="true", transaction="kept")
    producer.send("/queue/sends", "plain", persistent="true")
    equal(consumer.bodies(1), [b"plain"])
    producer.abort("dropped")
    producer.commit("kept")
    equal(consumer.bodies(2), [b"k1", b"k2"])

    producer.begin("lost")
    producer.send("/queue/sends", "l1", persistent="true", transaction="lost")
    producer.disconnect()
    consumer.disconnect()
    assert_empty(arguments, "/queue/sends")


def acks(arguments):
    producer = Client(arguments)
    for body in ("a1", "a2", "a3"):
        producer.send("/queue/acks", body, persistent="true")
    producer.disconnect()

    consumer = Client(arguments)
    consumer.subscribe("/queue/acks", ack="client-individual")
    messages = [consumer.message() for _ in range(3)]
    consumer.begin("t")
    consumer.ack(messages[0], transaction="t")
    consumer.ack(messages[1], transaction="t")
    consumer.abort("t")
    consumer.disconnect()

    consumer = Client(arguments)
    consumer.subscribe("/queue/acks", ack="client-individual")
    messages = [consumer.message() for _ in range(3)]
    equal([message.body for message in messages], [b"a1", b"a2", b"a3"])
    equal([message.headers.get("redelivered") for message in messages], ["true"] * 3)
    consumer.begin("t")
    consumer.ack(messages[0], transaction="t")
    consumer.ack(messages[2], transaction="t")
    consumer.commit("t")
    consumer.disconnect()

    consumer = Client(arguments)
    consumer.subscribe("/queue/acks", ack="client-individual")
    message = consumer.message()
    equal(message.body, b"a2")
    consumer.ack(message)
    consumer.disconnect()
    assert_empty(arguments, "/queue/acks")


def acked_again_after_abort(arguments):
    """ABORT leaves the messages with the subscription, to be acked again."""
    client = Client(arguments)
    client.send("/queue/again", "m1", persistent="true")
    client.subscribe("/queue/again", ack="client-individual")
    message = client.message()
    client.begin("t")
    client.ack(message, transaction="t")
    client.abort("t")
    client.ack(message)
    client.disconnect()
    assert_empty(arguments, "/queue/again")


def both(arguments):
    """Takes from one queue and gives to another, in one transaction."""
    client = Client(arguments)
    client.send("/queue/in", "work", persistent="true")
    client.subscribe("/queue/in", ack="client-individual")
    message = client.message()
    client.begin("t")
    client.send("/queue/out", "result", persistent="true", transaction="t")
    client.ack(message, transaction="t")
    client.commit("t")
    client.disconnect()
    assert_empty(arguments, "/queue/in")
    client = Client(arguments)
    client.subscribe("/queue/out")
    equal(client.bodies(1), [b"result"])
    client.disconnect()


def scenario(arguments):
    sends(arguments)
    acks(arguments)
    acked_again_after_abort(arguments)
    both(arguments)


if __name__ == "__main__":
    run(scenario)
