"""Generated inputs, sent to all targets side by side, and what came of them."""

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import msgspec
import psutil

from attack.inputs import ASKED, Input, generate
from attack.targets import KINDS, Target, token
from attack.wire import Answer, NoAnswer, Wire, answers, statuses

MIB: Final = 1024 * 1024
_FAULTS_LIMIT: Final = 20
_SENDERS: Final = 4  # to each target: a sender mostly waits, for pieces to arrive and for answers
_SETTLED_AFTER: Final = 0.4  # caches are full, threads are made: what comes now is a leak


class Fault(msgspec.Struct, frozen=True):
    """An input that was not answered as it should be; the seed makes it again."""

    seed: int
    target: str
    kind: str
    detail: str

    def __str__(self) -> str:
        return f"seed {self.seed}, {self.target}, {self.kind}: {self.detail}"


class Load:
    """Inputs from a seed on, until so many were sent or so long has passed."""

    def __init__(
        self, targets: Sequence[Target], seed: int, inputs: int | None, for_s: float
    ) -> None:
        self.targets, self.seed, self._inputs, self._for_s = targets, seed, inputs, for_s
        self.sent: Counter[str] = Counter()
        self.answers: Counter[str] = Counter()
        self.faults: list[Fault] = []
        self.took_s = 0.0
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._tokens = {target.name: token() if target.tokens else None for target in targets}
        self._before = memory(targets)
        self._settled: dict[str, int] | None = None

    @property
    def count(self) -> int:
        """The number of inputs sent."""
        return self.sent.total()

    @property
    def unexpected(self) -> int:
        """The number of 5xx answers that the input did not ask for."""
        return sum(fault.detail.startswith("5") for fault in self.faults)

    def run(self, report: Callable[[str], None], every_s: float = 10) -> None:
        """Send until the end; KeyboardInterrupt ends it early, with what there is."""
        began_s = time.monotonic()
        threads = [
            threading.Thread(target=self._send_all, args=(target, sender))
            for target in self.targets
            for sender in range(_SENDERS)
        ]
        for thread in threads:
            thread.start()
        try:
            self._watch(threads, began_s, report, every_s)
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()
            self.took_s = time.monotonic() - began_s

    def growth(self) -> dict[str, int]:
        """Return how many bytes each process grew since it had settled."""
        now = memory(self.targets)
        start = self._settled or self._before
        return {name: size - start[name] for name, size in now.items() if name in start}

    def lost(self) -> list[str]:
        """Name the processes of the beginning that are gone."""
        return sorted(set(self._before) - set(memory(self.targets)))

    def _watch(
        self, threads: Sequence[threading.Thread], began_s: float,
        report: Callable[[str], None], every_s: float,
    ) -> None:  # fmt: skip
        reported_s, reported = began_s, 0
        while any(thread.is_alive() for thread in threads):
            time.sleep(0.05)
            now_s = time.monotonic()
            if now_s - began_s > self._for_s:
                self._stop.set()
            if self._settled is None and self._share(now_s - began_s) > _SETTLED_AFTER:
                self._settled = memory(self.targets)
            if now_s - reported_s > every_s:
                reported_s = now_s
                rate = self.count / (now_s - began_s)
                grown = max(self.growth().values(), default=0) / MIB
                text = f"  {self.count} inputs, {rate:.0f}/s, {len(self.faults)} faults"
                report(f"{text}, {grown:.1f} MiB grown at most")
            while reported < len(self.faults):
                report(f"  {self.faults[reported]}")
                reported += 1

    def _share(self, passed_s: float) -> float:
        """Return how much of the load is over, from 0 to 1."""
        return max(passed_s / self._for_s, self.count / self._inputs if self._inputs else 0)

    def _send_all(self, target: Target, sender: int) -> None:
        wires = {"api": Wire(target.api.port), "gateway": Wire(target.gateway_port)}
        for seed in itertools.islice(self._seeds(target.number), sender, None, _SENDERS):
            if self._stop.is_set():
                break
            try:
                self._send(target, wires, seed)
            except Exception as error:  # noqa: BLE001 of the attacker itself: it must be known
                self._blame(Fault(seed, target.name, "attacker", repr(error)))
        for wire in wires.values():
            wire.close()

    def _seeds(self, number: int) -> Iterator[int]:
        """Return the seeds of a target: a seed is always sent to the same kind."""
        size = len(KINDS)
        first = self.seed + (number - self.seed) % size
        seeds = itertools.count(first, size)
        if self._inputs is None:
            return seeds
        return itertools.takewhile(lambda seed: seed < self.seed + (self._inputs or 0), seeds)

    def _send(self, target: Target, wires: dict[str, Wire], seed: int) -> None:
        case = generate(seed, self._tokens[target.name])
        if case.whole:
            detail, answered = _ask(wires[case.server], case)
        else:
            port = target.api.port if case.server == "api" else target.gateway_port
            framing = case.kind == "framing"
            read = answers(port, case.pieces[0]) if framing else statuses(port, case.pieces)
            detail, answered = _judge_stream(case, read)
        with self._lock:
            self.sent[case.kind] += 1
            self.answers.update(answered)
        if detail:
            self._blame(Fault(seed, f"{target.name}, {case.server}", case.kind, detail))

    def _blame(self, fault: Fault) -> None:
        with self._lock:
            self.faults.append(fault)
            if len(self.faults) >= _FAULTS_LIMIT:
                self._stop.set()


def memory(targets: Sequence[Target]) -> dict[str, int]:
    """Return the bytes of memory in use of every process that must not grow, by target and id."""
    sizes = {}
    for target in targets:
        for process in target.processes():
            try:
                key = f"{target.name}: {process.name()} {process.pid}"
                sizes[key] = process.memory_info().rss
            except psutil.NoSuchProcess:  # one that has just ended
                continue
    return sizes


def _ask(wire: Wire, case: Input) -> tuple[str, list[str]]:
    """Send a whole request; return what is wrong with the answer, "" for nothing."""
    try:
        answer = wire.ask(case.pieces[0])
    except NoAnswer as error:
        return f"no answer: {error}", ["none"]
    return _complaint(answer), [str(answer.status)]


def _complaint(answer: Answer) -> str:
    if answer.status >= 500:
        return f"{answer.status} {answer.body[:300]!r}"
    if answer.status >= 400 and answer.body:
        try:
            problem = msgspec.json.decode(answer.body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return f"{answer.status} without a problem document: {answer.body[:200]!r}"
        if problem.get("status") != answer.status:
            return f"{answer.status} says {problem.get('status')} in its document"
    return ""


def _judge_stream(case: Input, answered: Sequence[int]) -> tuple[str, list[str]]:
    words = [str(status) for status in answered] or ["closed"]
    unexpected = [status for status in answered if status >= 500 and status not in ASKED]
    if unexpected:
        return f"{unexpected[0]} to a stream", words
    if case.once and len(answered) > 1:
        return f"two requests were read: {answered}", words
    return "", words
