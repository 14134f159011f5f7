"""Entry of `python -m meinheld_wheel LOCK FOLDER`."""

import argparse
import sys
from pathlib import Path

from meinheld_wheel import BuildFailed, build
from meinheld_wheel.patch import PatchFailed


def main() -> int:
    """Build the wheel; return 1 when that fails, and say why."""
    parser = argparse.ArgumentParser(prog="meinheld_wheel", description="Build our meinheld.")
    parser.add_argument("lock", type=Path, help="requirements file with meinheld's hash")
    parser.add_argument("folder", type=Path, help="where to put the wheel")
    parser.add_argument("--sanitized", action="store_true", help="with AddressSanitizer")
    arguments = parser.parse_args()
    try:
        build(arguments.lock, arguments.folder, sanitized=arguments.sanitized)
    except (BuildFailed, PatchFailed) as error:
        print(f"meinheld: {error}", file=sys.stderr)  # noqa: T201 a command's words
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
