"""SQLAlchemy's QueuePool with psycopg2 under threads. One JSON request per line, one JSON answer per line.

{"do": "find", "url", "mode", "ids"}                                -> {"accounts": [[balance, owner], ...]}
{"do": "run", "url", "mode", "tasks", "warm_up", "seconds"}         -> a tally (src/load.rs)

mode "pool": the engine's pool as a DBAPI connection, with a statement prepared on each connection.
mode "core": engine.connect() and text(), as most programs do it.
"""

import itertools
import json
import sys
import threading
import time

from sqlalchemy import create_engine, event, text

FIND = "SELECT balance, owner FROM accounts WHERE id = "


def open_engine(url):
    # The guide's numbers; AUTOCOMMIT, since BEGIN and ROLLBACK around a single read would be two more round trips.
    engine = create_engine(
        url.replace("postgres://", "postgresql+psycopg2://", 1),
        pool_size=10,
        max_overflow=20,
        pool_timeout=30,
        pool_recycle=3600,
        pool_pre_ping=True,
        isolation_level="AUTOCOMMIT",
    )

    @event.listens_for(engine, "connect")
    def prepare(connection, _record):
        with connection.cursor() as cursor:
            cursor.execute("PREPARE find (int) AS " + FIND + "$1")

    return engine


def finder(engine, mode):
    statement = text(FIND + ":id")

    def through_pool(number):
        connection = engine.raw_connection()
        try:
            with connection.cursor() as cursor:
                cursor.execute("EXECUTE find (%s)", (number,))
                return cursor.fetchone()
        finally:
            connection.close()

    def through_core(number):
        with engine.connect() as connection:
            return tuple(connection.execute(statement, {"id": number}).one())

    return {"pool": through_pool, "core": through_core}[mode]


class Load:
    """A closed loop, as src/load.rs."""

    def __init__(self, find, tasks):
        self.find, self.tasks, self.phase = find, tasks, "warming"
        self.took = [[] for _ in range(tasks)]
        self.last = [0.0] * tasks
        self.errors = []

    def work(self, task):
        took, now = self.took[task], time.perf_counter
        try:
            for number in itertools.count(task, 61):
                key = number % 1000 + 1
                started = now()
                balance, _owner = self.find(key)
                if balance != key * 7:
                    raise ValueError(f"account {key} has {balance}")
                millis = (now() - started) * 1e3
                if self.phase == "counting":
                    took.append(millis)
                elif self.phase == "over":
                    self.last[task] = millis
                    return
        except Exception as error:  # Told to the benchmark, whatever it is.
            self.errors.append(f"{type(error).__name__}: {error}")

    def run(self, warm_up, seconds):
        threads = [threading.Thread(target=self.work, args=(task,), daemon=True) for task in range(self.tasks)]
        for thread in threads:
            thread.start()
        time.sleep(warm_up)
        started, cpu = time.perf_counter(), time.process_time()
        self.phase = "counting"
        time.sleep(seconds)
        self.phase = "over"
        measured, cpu = time.perf_counter() - started, time.process_time() - cpu
        for thread in threads:
            thread.join(60)
        return measured, cpu

    def tally(self, warm_up, seconds):
        measured, cpu = self.run(warm_up, seconds)
        took = sorted(itertools.chain.from_iterable(self.took))
        if self.errors or not took:
            return {"error": (self.errors or ["not one operation ended in time"])[0]}
        return {
            "seconds": measured,
            "served": [len(one) for one in self.took],
            "p50": took[len(took) // 2],
            "p99": took[len(took) * 99 // 100],
            "longest": max(took[-1], *self.last),
            "cpu_seconds": cpu,
        }


def answer(request):
    engine = open_engine(request["url"])
    try:
        find = finder(engine, request["mode"])
        if request["do"] == "find":
            return {"accounts": [list(find(number)) for number in request["ids"]]}
        return Load(find, request["tasks"]).tally(request["warm_up"], request["seconds"])
    except Exception as error:  # The same.
        return {"error": f"{type(error).__name__}: {error}"}
    finally:
        engine.dispose()


for line in sys.stdin:
    print(json.dumps(answer(json.loads(line))), flush=True)
