"""A client connects again after the broker was restarted, and goes on where it was."""

from client import PATIENCE, Client, assert_empty, equal, run, say


def scenario(arguments):
    client = Client(arguments)
    client.subscribe("/queue/journey", ack="client-individual")
    for body in ("m1", "m2", "m3"):
        client.send("/queue/journey", body, persistent="true")
    messages = [client.message() for _ in range(3)]
    client.ack(messages[0])
    say("restart the broker")

    assert client.lost.wait(PATIENCE), "the connection outlived its broker"
    client.connect()
    client.subscribe("/queue/journey", ack="client-individual")
    messages = [client.message() for _ in range(2)]
    equal([message.body for message in messages], [b"m2", b"m3"])
    equal([message.headers.get("redelivered") for message in messages], ["true"] * 2)
    for message in messages:
        client.ack(message)
    client.send("/queue/journey", "m4", persistent="true")
    message = client.message()
    equal(message.body, b"m4")
    client.ack(message)
    client.disconnect()
    assert_empty(arguments, "/queue/journey")


if __name__ == "__main__":
    run(scenario)
