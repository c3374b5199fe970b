"""Higher priorities first, and the order of sending within one."""

from client import Client, equal, run


def scenario(arguments):
    client = Client(arguments)
    order = [4, 9, 0, 5, 9, 4, 1, 0, 7]
    for number, priority in enumerate(order):
        client.send("/queue/ranked", f"{priority}-{number}", persistent="true", priority=str(priority))
    client.send("/queue/ranked", "4-default", persistent="true")
    client.subscribe("/queue/ranked")
    expected = ["9-1", "9-4", "7-8", "5-3", "4-0", "4-5", "4-default", "1-6", "0-2", "0-7"]
    messages = [client.message() for _ in expected]
    equal([message.body.decode() for message in messages], expected)
    equal(messages[0].headers["priority"], "9")
    equal(messages[6].headers["priority"], "4")
    client.disconnect()


if __name__ == "__main__":
    run(scenario)
