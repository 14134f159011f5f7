"""The cost of a slice: CPU and memory of every process, from /proc, summed by role."""

import resource
from collections.abc import Mapping

import psutil

from loadtest.bench.results import Memory

GENERATOR = "generator"
_MIB = 1024 * 1024


def cpu_s(roles: Mapping[str, int]) -> dict[str, float]:
    """Return the CPU seconds that each role and the generators have used since they began."""
    seconds = {role: _tree_s(pid) for role, pid in roles.items()}
    generators = resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds | {GENERATOR: generators.ru_utime + generators.ru_stime}


def machine_s() -> float:
    """Return the CPU seconds that the whole machine has used since it was started."""
    times = psutil.cpu_times()
    idle_s = times.idle + times.iowait
    return float(sum(times[:8]) - idle_s)  # the rest is contained in these


def foreign(machine_s: float, role_s: Mapping[str, float], took_s: float) -> float:
    """Return the share of the machine's CPU that went neither to our roles nor to the generators.

    `machine_s` and `role_s` are what a slice of `took_s` used.
    """
    others_s = machine_s - sum(role_s.values())
    return round(max(0.0, others_s / (took_s * (psutil.cpu_count() or 1))), 3)


def per_unit_us(
    start_s: Mapping[str, float], end_s: Mapping[str, float], count: int
) -> dict[str, float]:
    """Return the CPU of a slice per unit, for the roles that took part."""
    costs = {role: (end - start_s.get(role, 0.0)) / count * 1e6 for role, end in end_s.items()}
    total = sum(costs.values())
    return {role: round(us, 1) for role, us in costs.items() if us > total / 100}


def memory(roles: Mapping[str, int]) -> dict[str, Memory]:
    """Return the memory of each role's processes as proportional set size (PSS)."""
    readings = {}
    for role, pid in roles.items():
        sizes = [_pss(process) for process in _tree(pid)]
        mib = [round(size / _MIB, 1) for size in sizes if size]
        readings[role] = Memory(len(mib), round(sum(mib), 1), max(mib, default=0.0))
    return readings


def _tree(pid: int) -> list[psutil.Process]:
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _tree_s(pid: int) -> float:
    """Sum a process tree. The root has the CPU of its ended children, as PostgreSQL's backends."""
    seconds = 0.0
    for number, process in enumerate(_tree(pid)):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        seconds += times.user + times.system
        if number == 0:
            seconds += times.children_user + times.children_system
    return seconds


def _pss(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0
