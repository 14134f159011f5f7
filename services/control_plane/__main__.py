"""`python -m control_plane VERB`.

build [control|node|tools ...]   build what the cache lacks: these groups, or everything
run                              run a control plane until Ctrl-C
up | down                        the same, detached
"""

import sys
from collections.abc import Sequence

from control_plane import detached
from control_plane.binaries import GROUPS, Missing, build
from control_plane.plane import Broken
from devstack.bootstrap import SetupFailed


def main(words: Sequence[str]) -> int:
    """Run a verb; return 2 for an unknown one, 1 if it fails."""
    verbs = {"run": detached.run, "up": detached.up, "down": detached.down}
    verb, *groups = words or [""]
    try:
        if verb == "build" and set(groups) <= set(GROUPS):
            sys.stdout.writelines(f"{path}\n" for path in build(*groups))
        elif verb in verbs and not groups:
            verbs[verb]()
        else:
            sys.stderr.write(f"{__doc__}\n")
            return 2
    except (Missing, Broken, SetupFailed) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


sys.exit(main(sys.argv[1:]))
