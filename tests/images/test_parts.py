"""An image's list of parts (CycloneDX) agrees with its contents and with the lock."""

import json
import re

import pytest

from images import workshop
from images.containers import run

# What a package is called differs by source in case and punctuation.
SCRIPT = """
import json, re
from importlib.metadata import distributions
def named(name, version):
    return re.sub("[-_.]+", "-", name).lower() + "==" + version
bill = json.load(open("/opt/FOLDER/sbom.cdx.json"))
root = bill["metadata"].get("component")
listed = bill["components"] + ([root] if root else [])
inside = distributions(path=["/opt/FOLDER/lib/python3.11/site-packages"])
print(json.dumps({
    "listed": sorted(named(part["name"], part["version"]) for part in listed),
    "inside": sorted(named(part.metadata["Name"], part.version) for part in inside),
}))
"""
FOLDERS = {"services": "orders", "operator": "operator", "loadtest": "loadtest"}


@pytest.fixture(params=FOLDERS)
def folder(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def test_every_part_is_listed_and_locked(folder: str, request: pytest.FixtureRequest) -> None:
    fixture = {"services": "service_image"}.get(folder, f"{folder}_image")
    script = SCRIPT.replace("FOLDER", FOLDERS[folder])
    process = run(request.getfixturevalue(fixture), "python3", "-c", script)
    parts: dict[str, list[str]] = json.loads(process.stdout)
    assert parts["listed"] == parts["inside"]
    lock = (workshop.REPOSITORY / folder / "requirements.lock").read_text()
    locked = set(re.findall(r"^([\w.-]+==[^ ;]+)", lock, re.MULTILINE))
    # A local version (+...) is a build of ours from the locked source.
    others = {name for name in parts["inside"] if name.partition("+")[0] not in locked}
    assert all(name.startswith("orderservice-platform==") for name in others)
    assert len(others) == (folder != "loadtest")
