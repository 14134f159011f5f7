"""Prometheus, promtool, Alertmanager and amtool from Debian's packages, in the user's cache."""

import shutil
from pathlib import Path

from devstack.packages.release import Release

# The programs need only libc; the other packages are for Prometheus' own pages.
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
# The sources of moment-timezone: 210 MB that we do not need.
SOURCES = Path("usr", "share", "javascript", "moment-timezone", "data")
# Debian's Alertmanager reads its templates from the first; ours, as long a path, from the folder in
# which it runs, where `sr` leads to this release's `usr`.
TEMPLATES = b"/usr/share/prometheus/alertmanager"
OUR_TEMPLATES = b"./sr/share/prometheus/alertmanager"


def program(name: str) -> Path:
    """Return a program of the release, fetched or not."""
    return usr() / "bin" / name


def pages() -> Path:
    """Return the folder of Prometheus' web pages."""
    return usr() / "share" / "prometheus" / "web"


def usr() -> Path:
    """Return the folder of everything but configuration."""
    return RELEASE.folder() / "usr"


def finish(folder: Path) -> None:
    """Put Alertmanager's templates where it finds them; delete files that are not used."""
    shutil.rmtree(folder / SOURCES, ignore_errors=True)
    alertmanager = folder / "usr" / "bin" / "prometheus-alertmanager"
    alertmanager.write_bytes(alertmanager.read_bytes().replace(TEMPLATES, OUR_TEMPLATES))


RELEASE = Release("prometheus", 2, PACKAGES, finish=finish)
