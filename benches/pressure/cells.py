"""What is done to a database, or to the brokers, while a load goes on: a cell each."""

import itertools
import threading
import time
from contextlib import contextmanager

from databases.harness import wait_until

FOREIGN = "CREATE TABLE IF NOT EXISTS foreign_work (note integer)"


@contextmanager
def transaction(stage):
    """Somebody's transaction that has written something, so that no row that was deleted since may be cleaned away."""
    stage.server.client(FOREIGN, check=True)
    session = stage.server.session()
    if stage.server.backend == "postgres":
        say(session, "BEGIN ISOLATION LEVEL REPEATABLE READ; INSERT INTO foreign_work VALUES (1);")
    else:
        say(session, "START TRANSACTION WITH CONSISTENT SNAPSHOT; INSERT INTO foreign_work VALUES (1);")
    yield
    say(session, "COMMIT;")
    end(session)


@contextmanager
def readers(stage):
    """Four reports that overlap: at any time one of them has an old snapshot."""
    stage.server.client(FOREIGN, check=True)
    begin = "BEGIN ISOLATION LEVEL REPEATABLE READ;" if stage.server.backend == "postgres" else (
        "START TRANSACTION WITH CONSISTENT SNAPSHOT;"
    )
    sessions = [stage.server.session() for _ in range(4)]

    def read(turn):
        session = sessions[turn % len(sessions)]
        say(session, f"COMMIT; {begin} SELECT count(*) FROM foreign_work;")

    with every(stage.span / 12, read):
        yield
    for session in sessions:
        end(session)


@contextmanager
def slot(stage):
    """A logical replication slot that nobody reads from."""
    stage.server.ask("SELECT pg_create_logical_replication_slot('abandoned', 'test_decoding')")
    yield
    stage.server.ask("SELECT pg_drop_replication_slot('abandoned')")


@contextmanager
def tenfold(stage):
    """Ten times the load."""
    loader = stage.load(stage.span, rate=9 * stage.rate)
    yield
    stage.finish(loader)


@contextmanager
def connections(stage):
    """Others take all connections that the server gives."""
    most = "SHOW max_connections" if stage.server.backend == "postgres" else "SELECT @@max_connections"
    ask = "SELECT 1;"
    sessions = [stage.server.session() for _ in range(int(stage.server.ask(most)[0][0]))]
    for session in sessions:
        say(session, ask)
    wait_until(lambda: stage.server.client(ask).returncode != 0, "to take all connections")
    yield
    for session in sessions:
        end(session)


@contextmanager
def terminated(stage):
    """An administrator ends the brokers' sessions every three seconds."""
    if stage.server.backend == "postgres":
        own = "FROM pg_stat_activity WHERE application_name LIKE 'batonmq%'"
        kill = lambda _: stage.server.client(f"SELECT pg_terminate_backend(pid) {own}")
    else:

        def kill(_):
            own = "SELECT id FROM information_schema.processlist WHERE db = 'batonmq_bench' AND id <> connection_id()"
            for row in stage.server.ask(own):
                stage.server.client(f"KILL {row[0]}")

    with every(3, kill):
        yield


@contextmanager
def restarts(stage):
    """The server is restarted twenty times; two standbys wait."""

    def restart(_):
        stage.harness.stop(stage.server.name)
        stage.harness.start(stage.server.name)

    with every(stage.span / 20, restart, times=20):
        yield


@contextmanager
def kills(stage):
    """The master is killed every five seconds, and comes back as a standby."""

    def kill(_):
        for broker in stage.brokers:
            if broker.serves():
                broker.kill()
                broker.start()
                return

    with every(5, kill):
        yield


CELLS = {
    "postgres": [transaction, readers, slot, tenfold, connections, terminated, restarts, kills],
    "mariadb": [transaction, tenfold, connections, terminated, restarts, kills],
}


@contextmanager
def every(seconds, act, times=None):
    """Acts again and again, from the start on, until the block ends; or just so many times, and the block ends then."""
    ended = threading.Event()
    failures = []

    def run():
        begin = time.monotonic()
        for turn in itertools.islice(itertools.count(), times):
            if ended.wait(max(0.0, begin + turn * seconds - time.monotonic())):
                return
            try:
                act(turn)
            except Exception as error:  # told by whoever waits for the block
                failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        if times is None:
            ended.set()
        thread.join()
    if failures:
        raise failures[0]


def say(session, sql):
    try:
        session.stdin.write(sql + "\n")
        session.stdin.flush()
    except BrokenPipeError:  # the server had no connection for it
        pass


def end(session):
    try:
        session.stdin.close()
    except BrokenPipeError:
        pass
    session.wait(30)
