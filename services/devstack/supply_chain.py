"""Contents of the images by their locks: a bill of materials, licences, known vulnerabilities.

`bill` writes a CycloneDX document for each image and lists the licences. `audit` compares every
lock with a folder of advisories in the OSV format, such as the PyPA's advisory database. It uses no
network.
"""

import argparse
import os
import re
import subprocess
import sys
import venv
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml
from packaging.version import InvalidVersion, Version

from devstack.lock import IMAGES
from devstack.settings import REPOSITORY

FOLDER: Final = REPOSITORY / ".sbom"
_PIN: Final = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^ ;\\]+)", re.MULTILINE)
_LICENCE: Final = "License :: OSI Approved :: "
_LONGEST: Final = 60  # some packages give the whole text as their licence
_SHORT: Final = {"apache license, version 2.0": "Apache-2.0", "apache 2.0": "Apache-2.0"}


class Pin(NamedTuple):
    """A package of a lock; the name is lower case with dashes."""

    name: str
    version: str


class AdvisoryFinding(NamedTuple):
    """An advisory about a package of a lock."""

    lock: str
    pin: Pin
    advisory: str


def main(argv: Sequence[str] | None = None) -> int:
    """Return 0; for `audit` 1 if an advisory is about a locked version."""
    parser = argparse.ArgumentParser(prog="supply_chain", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("bill", help="write .sbom/ and list the licences")
    audit = verbs.add_parser("audit", help="look for known faults")
    audit.add_argument("advisories", type=Path, help="folder with advisories as OSV files")
    arguments = parser.parse_args(argv)
    return bill() if arguments.verb == "bill" else report(arguments.advisories)


def pins(lock: Path) -> list[Pin]:
    """Return the packages of a lock."""
    return [Pin(_normal(name), version) for name, version in _PIN.findall(lock.read_text())]


# -- bills and licences --------------------------------------------------------------------------


def bill() -> int:
    """Write a bill of materials for each image and print the licence of each package."""
    tool = _tool()
    for image in IMAGES:
        output = FOLDER / f"{image}.cdx.json"
        argv = [
            str(tool), "requirements", "--output-reproducible", "--pyproject", "pyproject.toml",
            "--output-file", str(output), f"{image}/requirements.lock",
        ]  # fmt: skip
        # It warns that a lock does not say which package asked for which.
        environment = os.environ | {"PYTHONWARNINGS": "ignore"}
        subprocess.run(argv, cwd=REPOSITORY, env=environment, check=True)
        print(f"{image}: {output.relative_to(REPOSITORY)}")
        for pin in pins(REPOSITORY / image / "requirements.lock"):
            print(f"  {pin.name} {pin.version}: {licence(pin.name)}")
    return 0


def _tool() -> Path:
    """Install the tool from its lock, once, next to its output."""
    environment = FOLDER / "tool"
    program = environment / "bin" / "cyclonedx-py"
    if not program.exists():
        venv.create(environment, with_pip=False)
        uv = Path(sys.executable).with_name("uv")
        argv = [
            str(uv), "pip", "install", "--quiet", "--no-deps", "--require-hashes",
            "--python", str(environment / "bin" / "python"), "-r", "requirements-sbom.lock",
        ]  # fmt: skip
        subprocess.run(argv, cwd=REPOSITORY, check=True)
    return program


def licence(name: str) -> str:
    """Return the licence that an installed package names, or "unknown"."""
    try:
        about = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return "not installed here"
    if "License-Expression" in about:
        return about["License-Expression"]
    classifiers = about.get_all("Classifier") or []
    licences = [text.removeprefix(_LICENCE) for text in classifiers if text.startswith(_LICENCE)]
    if licences:
        return ", ".join(licences)
    text = about["License"].strip().split("\n")[0] if "License" in about else ""
    return _SHORT.get(text.lower(), text) if 0 < len(text) <= _LONGEST else "unknown"


# -- advisories ----------------------------------------------------------------------------------


def report(advisories: Path) -> int:
    """Print every advisory about a locked version; return 1 if there is one."""
    locks = sorted(REPOSITORY.glob("**/*requirements*.lock"))
    findings = list(audit(locks, advisories))
    for finding in findings:
        print(f"{finding.lock}: {finding.pin.name} {finding.pin.version}: {finding.advisory}")
    count = sum(len(pins(lock)) for lock in locks)
    print(f"{len(locks)} locks, {count} packages, {len(findings)} known faults")
    return 1 if findings else 0


def audit(locks: Sequence[Path], advisories: Path) -> Iterator[AdvisoryFinding]:
    """Yield every advisory about a version of a lock."""
    by_package: dict[str, list[dict[str, Any]]] = {}
    locked = {pin.name for lock in locks for pin in pins(lock)}
    for folder in advisories.iterdir():
        if folder.is_dir() and _normal(folder.name) in locked:
            by_package[_normal(folder.name)] = [
                yaml.safe_load(file.read_text()) for file in sorted(folder.glob("*.yaml"))
            ]
    for lock in locks:
        for pin in pins(lock):
            for advisory in by_package.get(pin.name, []):
                if concerns(advisory, pin):
                    yield AdvisoryFinding(lock.name, pin, _title(advisory))


def concerns(advisory: dict[str, Any], pin: Pin) -> bool:
    """Return whether an advisory is about this version; a withdrawn one never is."""
    return not advisory.get("withdrawn") and any(
        _normal(affected["package"]["name"]) == pin.name
        and (
            pin.version in affected.get("versions", [])
            or any(_within(span, pin.version) for span in affected.get("ranges", []))
        )
        for affected in advisory.get("affected", [])
    )


def _within(span: dict[str, Any], version: str) -> bool:
    if span.get("type") != "ECOSYSTEM":
        return False
    inside = False
    for event in span["events"]:
        ((kind, bound),) = event.items()
        reached = bound == "0" or _at_least(version, bound)
        if kind == "introduced":
            inside = inside or reached
        elif kind == "fixed":
            inside = inside and not reached
        elif kind == "last_affected":
            inside = inside and (not reached or version == bound)
    return inside


def _at_least(version: str, bound: str) -> bool:
    try:
        return Version(version) >= Version(bound)
    except InvalidVersion:
        return False


def _title(advisory: dict[str, Any]) -> str:
    names = ", ".join([advisory["id"], *advisory.get("aliases", [])])
    summary = advisory.get("summary") or advisory.get("details", "")
    return f"{names}: {' '.join(summary.split())[:160]}"


def _normal(name: str) -> str:
    return re.sub("[-_.]+", "-", name).lower()


if __name__ == "__main__":
    sys.exit(main())
