"""Write the dashboards: `python -m orderservice_dashboards FOLDER`."""

import sys
from pathlib import Path

from orderservice_dashboards.drawn import written
from orderservice_dashboards.every import EVERY

if __name__ == "__main__":
    for _one in EVERY:
        Path(sys.argv[1], f"{_one.name}.json").write_text(written(_one))
