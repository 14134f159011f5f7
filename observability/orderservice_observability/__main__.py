"""Write the plain rule files: `python -m orderservice_observability FOLDER`."""

import sys
from pathlib import Path

from orderservice_observability.objectives import Objectives, Scope
from orderservice_observability.written import files


def main() -> None:
    """Write rules with the default objectives for a service called `orders`."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files(Scope("orders"), Objectives()).items():
        (folder / name).write_text(text)


if __name__ == "__main__":
    main()
