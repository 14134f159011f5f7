"""Imports of libraries without the parts that we do not use.

Some libraries import everything that is installed, or all of their own modules. That costs CPU at
every start, and memory as long as the process runs.
"""

import contextlib
import importlib.util
import sys
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def without(*names: str) -> Iterator[None]:
    """Hide modules from imports in the block, as if they were not installed.

    Afterwards they are visible again. Use it while the process has one thread: at import.
    """
    modules = {name: sys.modules[name] for name in names if name in sys.modules}
    # Python raises ModuleNotFoundError for a name that stands for None.
    sys.modules.update(dict.fromkeys(names))  # type: ignore[arg-type] # typeshed leaves None out
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]
        sys.modules.update(modules)


def defer(package: str) -> None:
    """Run a package's `__init__` at the first use of one of its names, not at import.

    Use it while the process has one thread: at import. It does nothing if the package is already
    imported or not installed.
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
