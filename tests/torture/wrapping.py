"""Failpoints in a process under test: wraps the methods of the table as modules are loaded."""

import functools
import importlib.machinery
import json
import os
import random
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from torture.points import ACTED, AFTER, EVERYWHERE, EXIT, POINTS, Point

_EXIT_CODE: Final = 86


class Armed:
    """The points of one process: which are armed, and what happens at the n-th pass."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._passes: dict[tuple[str, int], int] = defaultdict(int)

    def hit(self, name: str) -> None:
        """Act if the point is armed and this is the pass it was armed for."""
        self._dawdle()
        path = f"{self._folder}/{name}"
        try:
            written_ns = os.stat(path).st_mtime_ns  # noqa: PTH116 asked at every pass
        except OSError:
            return
        self._passes[name, written_ns] += 1
        try:
            order = json.loads(Path(path).read_bytes())
            if self._passes[name, written_ns] < order["nth"] and order["action"] == EXIT:
                return
            if order["action"] == EXIT:
                # Of several processes, the one that takes it away acts; the kernel notes when.
                Path(path).rename(f"{path}{ACTED}")
        except OSError:
            return
        if order["action"] == EXIT:
            os._exit(_EXIT_CODE)
        time.sleep(order["sleep_s"])

    def _dawdle(self) -> None:
        """Wait now and then, where all points are armed."""
        try:
            order = json.loads(Path(f"{self._folder}/{EVERYWHERE}").read_bytes())
        except OSError:
            return
        if random.random() < order["share"]:
            time.sleep(random.uniform(0, order["sleep_s"]))


class Finder:
    """Finds the modules of the table and wraps their methods once they are loaded."""

    def __init__(self, armed: Armed) -> None:
        self._armed = armed
        self._points: dict[str, list[tuple[str, Point]]] = defaultdict(list)
        for name, point in POINTS.items():
            self._points[point.target.partition(":")[0]].append((name, point))

    def find_spec(
        self, name: str, path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of a module of the table, whose loader wraps; None for all others."""
        if name not in self._points:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                load(module)
                for point_name, point in self._points[name]:
                    self._wrap(module, point_name, point)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec

    def _wrap(self, module: ModuleType, name: str, point: Point) -> None:
        owner, method = holder(module, point)
        setattr(owner, method, wrapped(getattr(owner, method), name, point.when, self._armed))


def holder(module: ModuleType, point: Point) -> tuple[Any, str]:
    """Return the class of a point and the name of its method. Raises AttributeError."""
    *owners, method = point.target.partition(":")[2].split(".")
    owner: Any = module
    for attribute in owners:
        owner = getattr(owner, attribute)
    return owner, method


def wrapped(function: Callable[..., Any], name: str, when: str, armed: Armed) -> Callable[..., Any]:
    """Return the function with a failpoint before or after it."""

    @functools.wraps(function)
    def before(*args: Any, **kwargs: Any) -> Any:
        armed.hit(name)
        return function(*args, **kwargs)

    @functools.wraps(function)
    def after(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        armed.hit(name)
        return result

    return after if when == AFTER else before


def install(folder: str) -> None:
    """Wrap the points of this process; `folder` is where they are armed."""
    sys.meta_path.insert(0, Finder(Armed(folder)))
