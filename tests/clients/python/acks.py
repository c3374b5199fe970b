"""The three ack modes: what was acknowledged is gone, what was not comes back, in order and marked."""

from client import Client, assert_empty, equal, run


def send_five(arguments, destination):
    producer = Client(arguments)
    for number in range(1, 6):
        producer.send(destination, f"m{number}", persistent="true")
    producer.disconnect()


def auto(arguments):
    send_five(arguments, "/queue/auto")
    consumer = Client(arguments)
    consumer.subscribe("/queue/auto", ack="auto")
    equal(consumer.bodies(5), [b"m1", b"m2", b"m3", b"m4", b"m5"])
    consumer.disconnect()
    assert_empty(arguments, "/queue/auto")


def cumulative(arguments):
    send_five(arguments, "/queue/client")
    consumer = Client(arguments)
    consumer.subscribe("/queue/client", ack="client")
    messages = [consumer.message() for _ in range(5)]
    equal([message.headers.get("redelivered", "false") for message in messages], ["false"] * 5)
    consumer.ack(messages[2])
    consumer.disconnect()

    consumer = Client(arguments)
    consumer.subscribe("/queue/client", ack="client")
    messages = [consumer.message() for _ in range(2)]
    equal([message.body for message in messages], [b"m4", b"m5"])
    equal([message.headers.get("redelivered") for message in messages], ["true"] * 2)
    consumer.ack(messages[1])
    consumer.disconnect()
    assert_empty(arguments, "/queue/client")


def individual(arguments):
    send_five(arguments, "/queue/individual")
    consumer = Client(arguments)
    consumer.subscribe("/queue/individual", ack="client-individual")
    messages = [consumer.message() for _ in range(5)]
    consumer.ack(messages[3])
    consumer.ack(messages[1])
    consumer.drop()

    consumer = Client(arguments)
    consumer.subscribe("/queue/individual", ack="client-individual")
    messages = [consumer.message() for _ in range(3)]
    equal([message.body for message in messages], [b"m1", b"m3", b"m5"])
    equal([message.headers.get("redelivered") for message in messages], ["true"] * 3)
    for message in messages:
        consumer.ack(message)
    consumer.disconnect()
    assert_empty(arguments, "/queue/individual")


def scenario(arguments):
    auto(arguments)
    cumulative(arguments)
    individual(arguments)


if __name__ == "__main__":
    run(scenario)
