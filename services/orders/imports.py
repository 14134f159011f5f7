"""Imports of libraries without optional parts of theirs that nobody uses here.

Some libraries import whatever is installed: a process pays for it with CPU at every start and with
memory for as long as it runs.
"""

import contextlib
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def without(*names: str) -> Iterator[None]:
    """Let what is imported in the block find that modules are not installed.

    Modules that are imported already stay. Use it where a process has one thread: at import.
    """
    hidden = [name for name in names if name not in sys.modules]
    # Python raises ModuleNotFoundError for a name that stands for None.
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type] # typeshed leaves None out
    try:
        yield
    finally:
        for name in hidden:
            sys.modules.pop(name, None)
