"""Wire a run into Locust: `locust -f loadtest/locusts/locustfile.py`, started by `loadtest`."""

import os
import sys
import time
from pathlib import Path
from typing import Any

import gevent
import locust.runners
import msgspec
import psutil
from locust import events
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner

from loadtest.locusts import context
from loadtest.locusts.counting import WorkerReport, to_builtins
from loadtest.locusts.customers import made_for
from loadtest.locusts.shape import shape_of
from loadtest.target.addresses import SetupFailed, refuse_unless_allowed
from loadtest.verdict import ExitCode
from loadtest.watchdog import ABORT

RUN = context.load()
REPORT_EVERY_S = 1.0
_SENT_WITHIN_S = 0.5
locust.runners.WORKER_REPORT_INTERVAL = REPORT_EVERY_S
# Seconds until a silent worker counts as lost. On a busy machine, 3 s would be too short.
locust.runners.HEARTBEAT_LIVENESS = 30

# Locust takes the user classes and the shape from the names of this module.
globals().update({kind.__name__: kind for kind in made_for(RUN)})
# On the master: the last report of each worker, and the time of the first user.
busy: dict[str, int] = {}
began: list[float] = []
Shape = shape_of(
    RUN.scenario,
    begun=lambda: bool(began),
    busy=lambda: sum(busy.values()),
    aborted=(Path(os.environ.get("LOADTEST_OUT", os.devnull)) / ABORT).exists,
)


def on_init(environment: Environment, **_: Any) -> None:
    """Register the listeners of a master or of a worker."""
    if isinstance(environment.runner, MasterRunner):
        write_down(environment, Path(os.environ["LOADTEST_OUT"]))
        return
    # A worker, or Locust in one process: the process that sends requests.
    environment.events.test_start.add_listener(leave_unless_allowed)  # type: ignore[no-untyped-call]
    if isinstance(environment.runner, WorkerRunner):
        report_from(environment)


def leave_unless_allowed(environment: Environment, **_: Any) -> None:
    """Stop this worker if the master names a host that is not allowed."""
    try:
        refuse_unless_allowed(environment.host or "", os.environ.get("LOADTEST_ALLOWED_HOSTS", ""))
    except SetupFailed as error:
        print(f"loadtest: {error}", file=sys.stderr, flush=True)
        if isinstance(environment.runner, WorkerRunner):
            environment.runner.send_message("quit")
            gevent.sleep(_SENT_WITHIN_S)
        os._exit(ExitCode.SETUP)  # Locust would ignore an exception here


def report_from(environment: Environment) -> None:
    """Add the counts of the last second to Locust's report."""
    process = psutil.Process()

    def add(client_id: str, data: dict[str, Any]) -> None:
        names, purchases = RUN.tally.take()
        report = WorkerReport(
            users=environment.runner.user_count if environment.runner else 0,
            busy=RUN.tally.busy,
            rss_bytes=process.memory_info().rss,
            worker=client_id,
            names=names,
        )
        data["report"], data["purchases"] = to_builtins(report), to_builtins(list(purchases))

    environment.events.report_to_master.add_listener(add)  # type: ignore[no-untyped-call]


def write_down(environment: Environment, folder: Path) -> None:
    """Append the reports of workers to two files, as JSON lines; nothing stays in memory."""
    timeline = (folder / "timeline.jsonl").open("ab", buffering=0)
    purchases = (folder / "purchases.jsonl").open("ab", buffering=0)

    def begin() -> None:
        began.append(time.monotonic())
        if environment.shape_class is not None:
            environment.shape_class.reset_time()  # type: ignore[no-untyped-call]
        (folder / "began").touch()

    def write(data: dict[str, Any], **_: Any) -> None:
        if not began and data.get("report", {}).get("users"):
            begin()
        if not began or "report" not in data:
            return
        busy[data["report"]["worker"]] = data["report"]["busy"]
        t = round(time.monotonic() - began[0], 2)
        timeline.write(msgspec.json.encode(data["report"] | {"t": t}) + b"\n")
        for purchase in data["purchases"]:
            purchases.write(msgspec.json.encode(purchase) + b"\n")

    environment.events.worker_report.add_listener(write)  # type: ignore[no-untyped-call]


events.init.add_listener(on_init)  # type: ignore[no-untyped-call]
