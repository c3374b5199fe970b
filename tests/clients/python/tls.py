"""The same over TLS: one message there and back, the broker's certificate checked."""

from client import Client, assert_empty, equal, run


def scenario(arguments):
    client = Client(arguments)
    client.subscribe("/queue/secret", ack="client-individual")
    for body in (b"whisper", b"x" * 300_000):
        client.send("/queue/secret", body, persistent="true")
        message = client.message()
        equal(message.body, body)
        client.ack(message)
    client.drop()
    assert_empty(arguments, "/queue/secret")


if __name__ == "__main__":
    run(scenario)
