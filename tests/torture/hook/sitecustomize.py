"""Wraps the failpoints of a process that is started with ORDERS_FAILPOINTS.

Python imports this module at start-up where its folder is on PYTHONPATH. A point is armed by a file
of its name in the process's folder; the one pass that takes the file away acts.
"""

import os

if os.environ.get("ORDERS_FAILPOINTS"):
    from torture import wrapping

    wrapping.install(os.environ["ORDERS_FAILPOINTS"])
