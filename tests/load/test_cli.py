"""The command line: what it starts it ends, and what it cannot run it refuses."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import pytest

from loadtest import catalogue, cli
from loadtest.run import Wishes
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
