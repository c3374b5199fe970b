"""NACK: a dead letter at once, or first redelivered where the broker has a policy for the queue."""

from client import Client, assert_empty, equal, run

TRIED = "/queue/tried.again"


def dead_letter(arguments):
    client = Client(arguments)
    client.subscribe("/queue/ActiveMQ.DLQ", ack="client-individual", id="dead")
    client.subscribe("/queue/refused", ack="client-individual", id="refused")
    client.send("/queue/refused", "poison", persistent="true", colour="red", correlation_id="c-1")
    message = client.message()
    message_id = message.headers["message-id"]
    client.nack(message)

    dead = client.message()
    equal(dead.headers["subscription"], "dead")
    equal(dead.body, b"poison")
    equal(dead.headers["colour"], "red")
    equal(dead.headers["correlation-id"], "c-1")
    equal(dead.headers["message-id"], message_id)
    equal(dead.headers["destination"], "/queue/ActiveMQ.DLQ")
    equal(dead.headers["original-destination"], "/queue/refused")
    assert dead.headers["dlqDeliveryFailureCause"], dead.headers
    client.ack(dead)
    client.disconnect()
    assert_empty(arguments, "/queue/refused")
    assert_empty(arguments, "/queue/ActiveMQ.DLQ")


def policy(arguments):
    """The broker is started with a policy for this queue that allows two redeliveries."""
    client = Client(arguments)
    client.subscribe("/queue/ActiveMQ.DLQ", ack="client-individual", id="dead")
    client.subscribe(TRIED, ack="client-individual", id="tried")
    client.send(TRIED, "poison", persistent="true")
    for attempt in (1, 2, 3):
        message = client.message()
        equal(message.headers["subscription"], "tried")
        equal(message.headers["JMSXDeliveryCount"], str(attempt))
        equal(message.headers["redelivered"], "true" if attempt > 1 else "false")
        client.nack(message)
    dead = client.message()
    equal(dead.headers["subscription"], "dead")
    equal(dead.headers["original-destination"], TRIED)
    client.ack(dead)
    client.disconnect()
    assert_empty(arguments, TRIED)


def not_in_version_1_0(arguments):
    client = Client(arguments)
    client.connection.send_frame("NACK", {"message-id": "1", "receipt": "n"})
    error = client.error()
    assert "NACK" in error.headers["message"], error.headers
    equal(error.headers["receipt-id"], "n")


def scenario(arguments):
    if arguments.version == "1.0":
        not_in_version_1_0(arguments)
        return
    dead_letter(arguments)
    policy(arguments)


if __name__ == "__main__":
    run(scenario)
