"""Why pods are refused, read from messages of the API server: a PriorityClass, a quota. Pure."""

import re
from collections import defaultdict
from collections.abc import Mapping
from typing import Final

import msgspec

PRIORITY_CLASS_MISSING: Final = "PriorityClassMissing"
QUOTA_EXCEEDED: Final = "QuotaExceeded"
# Messages of the admission plug-ins Priority and ResourceQuota.
_WORDS: Final = (
    (
        PRIORITY_CLASS_MISSING,
        re.compile(r"no PriorityClass with name (\S+) was found"),
        "PriorityClass {} does not exist: no pods of {}",
    ),
    (
        QUOTA_EXCEEDED,
        re.compile(r"exceeded quota: ([^,\s]+)"),
        "ResourceQuota {} is used up: no more pods of {}",
    ),
)


class PodRefusal(msgspec.Struct, frozen=True):
    """Why pods are refused: a reason for programs, and a text that does not alternate."""

    reason: str
    message: str


def refusals(problems: Mapping[str, str]) -> tuple[PodRefusal, ...]:
    """Return why pods are refused, from the problem of each process (by its name)."""
    processes: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for reason, pattern, message in _WORDS:
        for process, problem in sorted(problems.items()):
            for name in sorted(set(pattern.findall(problem))):
                processes[reason, message, name].append(process)
    return tuple(
        PodRefusal(reason, message.format(name, ", ".join(process_names)))
        for (reason, message, name), process_names in processes.items()
    )
