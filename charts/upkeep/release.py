"""`python -m upkeep.release VERSION`: show what a release changes; with `--write`, change it.

Package, images, charts and operator have one version. The CRD comes with the operator's chart.
"""

import argparse
import difflib
import re
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from upkeep import written

ROOT: Final = written.CHARTS.parent
# Where the version stands: by file, the text before it. Each stands there once.
PLACES: Final[dict[str, tuple[str, ...]]] = {
    "pyproject.toml": ('\nversion = "',),
    "services/Dockerfile": ("ARG VERSION=",),
    "operator/Dockerfile": ("ARG VERSION=",),
    "loadtest/Dockerfile": ("ARG VERSION=",),
    "operator/orderservice_operator/state/conditions.py": ('\nOPERATOR_VERSION: Final = "',),
    "charts/orderservice-operator/Chart.yaml": (
        "\nversion: ",
        "\nappVersion: ",
        "image: registry.example/orderservice:",
    ),
    "charts/orderservice-environment/Chart.yaml": ("\nversion: ", "\nappVersion: "),
    "charts/orderservice-environment/values.yaml": (
        "image: registry.example/orderservice-loadtest:",
    ),
}
_CHANGELOG: Final = ROOT / "CHANGELOG.md"
_UNRELEASED: Final = "## Unreleased\n"
_VERSION: Final = re.compile(r"\d+\.\d+\.\d+(?:-[0-9a-z.]+)?")


class Misplaced(Exception):
    """Correct `PLACES`, or the file that the message names."""


def versions() -> dict[str, str]:
    """Return the version at each place. Raises Misplaced."""
    return {
        f"{file}: {prefix.strip()}": _match(file, (ROOT / file).read_text(), prefix).group()
        for file, prefixes in PLACES.items()
        for prefix in prefixes
    }


def released(version: str, day: str) -> dict[Path, str]:
    """Return the text of every file that a release changes. Raises Misplaced."""
    texts = {ROOT / file: _replaced(file, version) for file in PLACES}
    heading = f"{_UNRELEASED}\n## {version} ({day})\n"
    return texts | {_CHANGELOG: _CHANGELOG.read_text().replace(_UNRELEASED, heading, 1)}


def _replaced(file: str, version: str) -> str:
    text = (ROOT / file).read_text()
    for prefix in PLACES[file]:
        match = _match(file, text, prefix)
        text = text[: match.start()] + version + text[match.end() :]
    return text


def _match(file: str, text: str, prefix: str) -> re.Match[str]:
    start = text.find(prefix) + len(prefix)
    match = _VERSION.match(text, start)
    if text.count(prefix) != 1 or match is None:
        raise Misplaced(f"{file}: expected one version after {prefix.strip()!r}")
    return match


def main() -> int:
    """Show or make a release; return the exit code."""
    parser = argparse.ArgumentParser(prog="make release", description=__doc__)
    parser.add_argument("version", help="such as 0.2.0")
    parser.add_argument("--write", action="store_true", help="change the files")
    arguments = parser.parse_args()
    if not _VERSION.fullmatch(arguments.version):
        parser.error(f"{arguments.version} is not a version such as 0.2.0")
    for path, text in released(arguments.version, f"{datetime.now(UTC):%Y-%m-%d}").items():
        name = str(path.relative_to(ROOT))
        old, new = path.read_text().splitlines(), text.splitlines()
        lines = difflib.unified_diff(old, new, name, name, n=0, lineterm="")
        sys.stdout.writelines(f"{line}\n" for line in lines)
        if arguments.write:
            path.write_text(text)
    if arguments.write:
        _write_dependents()
    else:
        sys.stdout.write("Nothing was written: add ARGS=--write.\n")
    return 0


def _write_dependents() -> None:
    for path, text in written.files().items():
        path.write_text(text)
    for chart in (written.OPERATOR, written.ENVIRONMENT):
        # What `helm upgrade --reuse-values` will meet: test_rendering.py, test_versions.py.
        package = ROOT / f"tests/charts/released/{chart.name}"
        shutil.make_archive(str(package), "gztar", chart.parent, chart.name)


if __name__ == "__main__":
    sys.exit(main())
