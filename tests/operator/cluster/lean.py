"""A Python that has what the operator's image has: what else is installed here would be measured
with it (pybreaker imports redis where there is one, structlog imports rich).
"""

import re
import shutil
import sysconfig
import venv
from importlib.metadata import distribution
from pathlib import Path
from typing import Final

_REPOSITORY: Final = Path(__file__).parents[3]
_LOCK: Final = _REPOSITORY / "operator" / "requirements.lock"
_OURS: Final = (
    "operator/orderservice_operator",
    "observability/orderservice_observability",
    "services/orderservice_topology",
)
_PINNED: Final = re.compile(r"^([a-z0-9-]+)==", re.MULTILINE)


def python(folder: Path) -> Path:
    """Make an environment of links to the packages of the operator's lock file."""
    venv.create(folder, symlinks=True)
    purelib = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    tops = {_REPOSITORY / ours for ours in _OURS}
    tops |= {top for name in _PINNED.findall(_LOCK.read_text()) for top in _tops(name)}
    for top in tops:
        (purelib / top.name).symlink_to(top)
    return folder / "bin" / "python"


def python_of_another_version(folder: Path, file: str, before: str, after: str) -> Path:
    """Make one whose operator has another text in one of its files."""
    environment = python(folder)
    link = next((folder / "lib").rglob("orderservice_operator"))
    original = link.resolve()
    link.unlink()
    shutil.copytree(original, link)
    text = (link / file).read_text()
    assert before in text
    (link / file).write_text(text.replace(before, after))
    return environment


def _tops(name: str) -> set[Path]:
    """Return the files and folders of a package beside other packages."""
    package = distribution(name)
    tops = {Path(str(package.locate_file(file.parts[0]))) for file in package.files or ()}
    return {top for top in tops if top.name not in {"..", "__pycache__"}}
