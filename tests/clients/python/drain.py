"""Takes everything out of the queue and tells it: number and redelivered flag."""

from client import Client, run, say


def scenario(arguments):
    client = Client(arguments)
    client.send("/queue/load", "end", persistent="true")
    client.subscribe("/queue/load", ack="client")
    while (message := client.message()).body != b"end":
        say(f"found {message.body.decode()} {message.headers.get('redelivered', 'false')}")
    client.ack(message)
    client.disconnect()


if __name__ == "__main__":
    run(scenario)
