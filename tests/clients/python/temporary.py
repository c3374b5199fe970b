"""Temporary destinations: request and reply between two connections."""

from client import Client, equal, run


def scenario(arguments):
    for kind in ("queue", "topic"):
        asker = Client(arguments)
        worker = Client(arguments)
        worker.subscribe("/queue/requests", ack="client-individual")
        mine = f"/temp-{kind}/replies"
        asker.subscribe(mine, id="replies")
        for number in range(3):
            asker.send("/queue/requests", f"q{number}", reply_to=mine, correlation_id=f"c{number}")
        for number in range(3):
            request = worker.message()
            equal(request.body, f"q{number}".encode())
            reply_to = request.headers["reply-to"]
            assert reply_to.startswith(f"/remote-temp-{kind}/"), reply_to
            worker.send(reply_to, f"a{number}", correlation_id=request.headers["correlation-id"])
            worker.ack(request)
        for number in range(3):
            reply = asker.message()
            equal(reply.body, f"a{number}".encode())
            equal(reply.headers["correlation-id"], f"c{number}")
            equal(reply.headers["subscription"], "replies")
            equal(reply.headers["destination"], mine)
        asker.disconnect()
        worker.disconnect()


if __name__ == "__main__":
    run(scenario)
