"""Bodies and headers arrive as they were sent."""

from client import Client, equal, run


def scenario(arguments):
    client = Client(arguments)
    client.subscribe("/queue/bodies", ack="client-individual")
    for body in (b"", b"\0", b"a\0b\0", bytes(range(256)) * 16, "žluťoučký 🐎".encode(), b"x" * 1_000_000, b"\n\n\0\n"):
        client.send("/queue/bodies", body, persistent="true")
        message = client.message()
        equal(message.body, body)
        client.ack(message)

    values = {"plain": "value", "unicode": "žluťoučký 🐎", "empty": ""}
    if arguments.version != "1.0":
        values |= {"colon": "a:b::c", "newline": "a\nb", "backslash": "a\\b\\n", "all": ":\\\n:"}
    if arguments.version == "1.2":
        values |= {"return": "a\rb\r\n"}
    client.send("/queue/bodies", "headers", **values)
    message = client.message()
    for name, value in values.items():
        equal(message.headers.get(name), value)
    client.ack(message)
    client.disconnect()


if __name__ == "__main__":
    run(scenario)
