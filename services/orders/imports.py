"""Imports of libraries without parts of theirs that nobody uses here.

Some libraries import whatever is installed, or all of their own modules: a process pays for it with
CPU at every start and with memory for as long as it runs.
"""

import contextlib
import importlib.util
import sys
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def without(*names: str) -> Iterator[None]:
    """Let what is imported in the block find that modules are not installed.

    Afterwards they are as before. Use it where a process has one thread: at import.
    """
    before = {name: sys.modules[name] for name in names if name in sys.modules}
    # Python raises ModuleNotFoundError for a name that stands for None.
    sys.modules.update(dict.fromkeys(names))  # type: ignore[arg-type] # typeshed leaves None out
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]
        sys.modules.update(before)


def defer(package: str) -> None:
    """Run a package's `__init__` when a name of it is used, not when a module of it is imported.

    Use it where a process has one thread: at import. If the package is imported already, or not
    installed, nothing happens.
    """
    spec = None if package in sys.modules else importlib.util.find_spec(package)
    if spec is None or spec.loader is None:
        return
    loader, module = spec.loader, importlib.util.module_from_spec(spec)

    def run_init(name: str) -> Any:
        del module.__dict__["__getattr__"]
        loader.exec_module(module)
        return getattr(module, name)

    module.__dict__["__getattr__"] = run_init  # PEP 562: for names that the module lacks
    sys.modules[package] = module
