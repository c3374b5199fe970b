"""A thousand receipts come in order; and one receipt, only at DISCONNECT, speaks for a thousand sends."""

from client import Client, equal, run

COUNT = 1000


def every_one(arguments):
    client = Client(arguments)
    names = [f"n{number}" for number in range(COUNT)]
    for name in names:
        client.send_unconfirmed("/queue/receipts", name, persistent="true", receipt=name)
    client.confirmed(names[-1])
    equal(client.receipts, names)
    client.subscribe("/queue/receipts")
    equal(client.bodies(COUNT), [name.encode() for name in names])
    client.disconnect()


def only_the_last(arguments):
    client = Client(arguments)
    for number in range(COUNT):
        client.send_unconfirmed("/queue/goodbye", f"n{number}", persistent="true")
    client.disconnect()
    client = Client(arguments)
    client.subscribe("/queue/goodbye")
    equal(client.bodies(COUNT), [f"n{number}".encode() for number in range(COUNT)])
    client.disconnect()


def scenario(arguments):
    every_one(arguments)
    only_the_last(arguments)


if __name__ == "__main__":
    run(scenario)
