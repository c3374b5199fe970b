"""What expires goes to the dead letters, its own expiry cleared; what does not, arrives."""

import time

from client import Client, equal, run


def scenario(arguments):
    client = Client(arguments)
    client.subscribe("/queue/ActiveMQ.DLQ", ack="client-individual", id="dead")
    soon = int(time.time() * 1000) + 300
    client.send("/queue/perishable", "short", persistent="true", expires=str(soon))
    client.send("/queue/perishable", "long", persistent="true", expires=str(soon + 3_600_000))
    dead = client.message()
    equal(dead.headers["subscription"], "dead")
    equal(dead.body, b"short")
    equal(dead.headers.get("expires", "0"), "0")
    equal(dead.headers["original-destination"], "/queue/perishable")
    assert "expired" in dead.headers["dlqDeliveryFailureCause"].lower(), dead.headers
    client.ack(dead)
    client.subscribe("/queue/perishable", ack="client-individual", id="rest")
    message = client.message()
    equal(message.body, b"long")
    equal(message.headers["expires"], str(soon + 3_600_000))
    client.ack(message)
    client.disconnect()


if __name__ == "__main__":
    run(scenario)
