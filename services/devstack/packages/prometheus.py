"""Prometheus, promtool, Alertmanager and amtool from Debian's packages, in the user's cache."""

import shutil
from pathlib import Path

from devstack.packages import cache, debian

# Raise it when what is unpacked changes, so that older caches are left alone.
RECIPE = 2
# The programs need nothing but libc; Prometheus' own pages are drawn with the others.
PACKAGES = (
    "prometheus",
    "prometheus-alertmanager",
    "fonts-glyphicons-halflings",
    "libjs-bootstrap4",
    "libjs-d3",
    "libjs-eonasdan-bootstrap-datetimepicker",
    "libjs-jquery",
    "libjs-jquery-hotkeys",
    "libjs-moment",
    "libjs-moment-timezone",
    "libjs-mustache",
    "libjs-popper.js",
    "libjs-rickshaw",
)
# What moment-timezone is built from: 210 MB that nobody reads here.
SOURCES = Path("usr", "share", "javascript", "moment-timezone", "data")
# Debian's Alertmanager reads its templates from the first; ours, as long a path, from the folder in
# which it runs, where `sr` leads to this release's `usr`.
TEMPLATES = b"/usr/share/prometheus/alertmanager"
OUR_TEMPLATES = b"./sr/share/prometheus/alertmanager"


def release() -> Path:
    """Give the folder with the unpacked packages, fetching them once.

    Raises: debian.FetchFailed when they are not cached and cannot be fetched.
    """
    return cache.keep(name(), unpack)


def cached() -> bool:
    """Tell whether nothing need be fetched."""
    return cache.kept(name())


def name() -> str:
    """Name the cached folder after the distribution, the machine and the recipe."""
    return f"prometheus-{debian.system()}-{RECIPE}"


def program(of: str) -> Path:
    """Name a program of the release, fetched or not."""
    return usr() / "bin" / of


def pages() -> Path:
    """Name the folder of Prometheus' own pages."""
    return usr() / "share" / "prometheus" / "web"


def usr() -> Path:
    """Name the folder of everything but configuration."""
    return cache.root() / name() / "usr"


def move_templates(alertmanager: Path) -> None:
    """Let Alertmanager find its templates where it is not installed."""
    alertmanager.write_bytes(alertmanager.read_bytes().replace(TEMPLATES, OUR_TEMPLATES))


def unpack(folder: Path) -> None:
    """Fetch and unpack; keep the list of what was taken beside it."""
    if not debian.supported():
        message = "Prometheus is fetched with apt, which is not on this machine"
        raise debian.FetchFailed(message)
    files = debian.fetch_exactly(PACKAGES, folder)
    shutil.rmtree(folder / SOURCES, ignore_errors=True)
    move_templates(folder / "usr" / "bin" / "prometheus-alertmanager")
    (folder / "packages.txt").write_text("\n".join(files) + "\n")
