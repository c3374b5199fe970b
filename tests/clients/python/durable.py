"""Durable topic subscriptions: they keep what comes while their client is away, until they are deleted."""

from client import Client, equal, run

NAME = {"activemq__subscriptionName": "reader"}


def scenario(arguments):
    topic = "/topic/news"
    publisher = Client(arguments)
    # ActiveMQ takes the name for the client-id when 1.0 unsubscribes; so both are the same here.
    reader = Client(arguments, client_id="reader")
    reader.subscribe(topic, ack="client-individual", **NAME)
    publisher.send(topic, "n1", persistent="true")
    message = reader.message()
    equal(message.body, b"n1")
    equal(message.headers["destination"], topic)
    reader.ack(message)
    reader.disconnect()

    publisher.send(topic, "n2", persistent="true")
    publisher.send(topic, "n3", persistent="true")
    reader = Client(arguments, client_id="reader")
    reader.subscribe(topic, ack="client-individual", **NAME)
    messages = [reader.message() for _ in range(2)]
    equal([message.body for message in messages], [b"n2", b"n3"])
    reader.ack(messages[0])
    reader.drop()

    reader = Client(arguments, client_id="reader")
    reader.subscribe(topic, ack="client-individual", **NAME)
    message = reader.message()
    equal(message.body, b"n3")
    reader.ack(message)
    reader.disconnect()
    # As ActiveMQ wants it: deleted by name while it is not in use.
    reader = Client(arguments, client_id="reader")
    reader.unsubscribe(topic, **NAME)

    publisher.send(topic, "n4", persistent="true")
    reader.subscribe(topic, ack="client-individual", **NAME)
    publisher.send(topic, "n5", persistent="true")
    message = reader.message()
    equal(message.body, b"n5")
    reader.ack(message)
    # In one step, which ActiveMQ refuses.
    reader.unsubscribe(topic, **NAME)
    publisher.send(topic, "n6", persistent="true")
    reader.subscribe(topic, ack="client-individual", **NAME)
    publisher.send(topic, "n7", persistent="true")
    equal(reader.bodies(1), [b"n7"])
    reader.disconnect()
    publisher.disconnect()


if __name__ == "__main__":
    run(scenario)
