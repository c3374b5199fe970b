"""Heart-beats both ways keep an idle connection alive."""

from client import PATIENCE, Client, equal, run


def scenario(arguments):
    client = Client(arguments, heart_beat=(600, 600))
    promised, asked = client.connected_headers["heart-beat"].split(",")
    equal((int(promised) > 0, int(asked) > 0), (True, True))
    for _ in range(5):
        client.heart_beats.get(timeout=PATIENCE)
    assert not client.lost.is_set()
    client.subscribe("/queue/beats")
    client.send("/queue/beats", "alive")
    equal(client.bodies(1), [b"alive"])
    client.disconnect()


if __name__ == "__main__":
    run(scenario)
