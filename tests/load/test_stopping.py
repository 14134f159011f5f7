"""Locust stops its users; no customer is taken away in the middle of a purchase."""

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
# Customers who hardly wait between journeys, as beyond the knee: Locust takes one that is about to
# begin for asleep, and ends it in the middle of what it has begun.
STOPPING = """
import gevent
from gevent import monkey
monkey.patch_all()
from locust.env import Environment
from loadtest.locusts import context, customers

begun, whole = [], []

def journey(_):
    begun.append(1)
    gevent.sleep(0.001)
    whole.append(1)

customers.KINDS["shopper"] = journey
run = context.load({"LOADTEST_SCENARIO": "breakpoint", "LOADTEST_RUN": "r"})
kinds = customers.made_for(run)
for kind in kinds:
    kind.wait_time = lambda self: 0.001
for _ in range(5):
    environment = Environment(user_classes=kinds, host="http://127.0.0.1:9", stop_timeout=30)
    runner = environment.create_local_runner()
    runner.start(80, spawn_rate=1000)
    gevent.sleep(0.4)
    runner.stop()
print(len(begun), len(whole))
"""


def test_a_journey_that_has_begun_is_ended_by_nobody() -> None:
    output = subprocess.run(
        [sys.executable, "-c", STOPPING],
        cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=60,
    ).stdout  # fmt: skip
    begun_count, ended_count = map(int, output.split())
    assert begun_count == ended_count > 80
