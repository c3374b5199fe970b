"""Browses a backlog and tells each message's number."""

from client import Client, run, say


def scenario(arguments):
    browser = Client(arguments)
    browser.subscribe("/queue/backlog", browser="true")
    while "browser" not in (message := browser.message()).headers:
        say(message.body.split(b" ", 1)[0].decode())
    browser.unsubscribe("/queue/backlog")
    browser.disconnect()


if __name__ == "__main__":
    run(scenario)
