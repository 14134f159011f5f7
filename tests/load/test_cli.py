"""The command line: what it starts it ends, and what it cannot run it refuses."""

import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import pytest

from loadtest import catalogue, cli
from loadtest.run import Wishes
from loadtest.scenario import at_least, at_most
from loadtest.sizing import sized
from loadtest.target.local_stack import LocalStack, StackFailed
from loadtest.target.place import Place, SetupFailed
from loadtest.verdict import ExitCode


class Stack:
    """Notes what it is told, and fails at one verb."""

    def __init__(self, fails: str) -> None:
        self.fails = fails
        self.told: list[str] = []

    def clear(self) -> None:
        self._do("clear")

    def adopt(self, settings: Mapping[str, str]) -> None:
        if settings:
            self._do(" ".join(settings))

    def start(self) -> None:
        self._do("start")

    def stop(self) -> None:
        self._do("stop")

    def _do(self, verb: str) -> None:
        self.told.append(verb)
        if verb == self.fails:
            raise StackFailed(verb)


@contextmanager
def failing(monkeypatch: pytest.MonkeyPatch, verb: str) -> Iterator[Stack]:
    stack = Stack(verb)
    monkeypatch.setattr(cli, "LocalStack", lambda _: stack)
    with pytest.raises(StackFailed, match=verb):
        yield stack


def begin(folder: Path) -> None:
    with cli.place(cli.parser().parse_args(["smoke"]), {}, folder):
        pass


def test_a_stack_that_another_run_holds_is_not_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with failing(monkeypatch, "clear") as stack:
        begin(tmp_path)
    assert stack.told == ["clear"]


def test_a_stack_that_did_not_start_whole_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with failing(monkeypatch, "start") as stack:
        begin(tmp_path)
    assert stack.told == ["clear", "start", "stop"]


def test_nothing_interrupts_the_end_of_a_stack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    stack = Stack("")
    monkeypatch.setattr(cli, "LocalStack", lambda _: stack)
    monkeypatch.setattr(cli, "own", lambda _: None)
    monkeypatch.setattr(stack, "stop", lambda: signal.raise_signal(signal.SIGINT))
    try:
        begin(tmp_path)
    finally:
        signal.signal(signal.SIGINT, kept[0])
        signal.signal(signal.SIGTERM, kept[1])


def test_a_scenario_that_cannot_be_run_leaves_the_others_their_verdicts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes = iter([ExitCode.INVARIANT, None, ExitCode.PASSED])

    def run_one(*_: object) -> ExitCode:
        if (outcome := next(outcomes)) is None:
            raise SetupFailed("broken off")
        return outcome

    stack = Stack("")
    monkeypatch.setattr(cli, "run_one", run_one)
    where = Place(host="http://localhost", stack=cast("LocalStack", stack))
    wished = Wishes(folder=tmp_path, environ={})
    smoke = catalogue.find("smoke")
    assert list(cli.run_each([smoke] * 3, where, wished)) == [2, 3, 0]
    assert stack.told == ["stop", "clear", "start"]


@pytest.mark.parametrize("argv", [["--scale", "much"], ["smoke", "smoke", "--worker-of", "x"]])
def test_what_cannot_be_understood_is_3(argv: list[str]) -> None:
    assert cli.main(argv, {}) == ExitCode.SETUP


def test_being_asked_for_help_is_0() -> None:
    assert cli.main(["--help"], {}) == ExitCode.PASSED


class Noting(LocalStack):
    """A stack that notes what would be done to it."""

    def __init__(self, state: Path) -> None:
        super().__init__(state)
        self.told: list[str] = []

    def _verb(self, *verb: str) -> str:
        self.told += verb
        return ""


def test_a_scenario_with_settings_of_its_own_has_the_stack_started_anew(tmp_path: Path) -> None:
    stack = Noting(tmp_path)
    stack.adopt({"ORDERS_API_MAX_WAIT_MS": "200"})
    stack.start()
    stack.adopt({"ORDERS_API_MAX_WAIT_MS": "200"})
    assert stack.told == ["start"]
    stack.adopt({})
    assert stack.told == ["start", "stop", "start"]


def test_thresholds_are_read_from_the_command_line() -> None:
    argv = ["smoke", "--threshold", "create.p99_ms<=200", "--threshold", "create.rate >= 5"]
    assert cli.parser().parse_args(argv).threshold == [
        at_most("create.p99_ms", 200),
        at_least("create.rate", 5),
    ]
    assert cli.main(["smoke", "--threshold", "create.p99_ms<200"], {}) == ExitCode.SETUP


def test_open_arrivals_are_shared_by_the_users_there_will_be() -> None:
    scenario = sized(catalogue.find("baseline"), rate=30, scale=2)
    assert {crowd.arrivals_per_s for crowd in scenario.crowds} == {1.5}
