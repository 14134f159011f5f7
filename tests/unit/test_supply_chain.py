"""The locks against advisories, and the licences of what is shipped."""

from pathlib import Path

import pytest
import yaml

from devstack.lock import IMAGES
from devstack.settings import REPOSITORY
from devstack.supply_chain import Pin, audit, concerns, licence, pins

ADVISORY = {
    "id": "PYSEC-1", "aliases": ["CVE-1"], "details": "A fault.",
    "affected": [{
        "package": {"ecosystem": "PyPI", "name": "Some_Thing"},
        "ranges": [{"type": "ECOSYSTEM", "events": [
            {"introduced": "0"}, {"fixed": "1.2"}, {"introduced": "2.0"}, {"fixed": "2.10"},
        ]}],
        "versions": ["3.0.post1"],
    }],
}  # fmt: skip
LOCK = (
    "# comment\nsome.thing==2.9 \\\n    --hash=sha256:00\nother[a,b]==1.0 ; python_version < '3'\n"
)


@pytest.mark.parametrize(
    ("version", "affected"),
    [
        ("1.1", True), ("1.2rc1", True), ("1.2", False), ("1.9", False), ("2.0", True),
        ("2.9.1", True), ("2.10", False), ("3.0.post1", True), ("3.0", False),
    ],
)  # fmt: skip
def test_an_advisory_is_about_its_versions(version: str, affected: bool) -> None:  # noqa: FBT001
    assert concerns(ADVISORY, Pin("some-thing", version)) == affected
    assert not concerns({**ADVISORY, "withdrawn": "2026-01-01"}, Pin("some-thing", version))
    assert not concerns(ADVISORY, Pin("other", version))


def test_a_locked_version_with_a_known_fault_is_named(tmp_path: Path) -> None:
    lock, folder = tmp_path / "requirements.lock", tmp_path / "vulns" / "some-thing"
    lock.write_text(LOCK)
    folder.mkdir(parents=True)
    (folder / "PYSEC-1.yaml").write_text(yaml.safe_dump(ADVISORY))
    (finding,) = audit([lock], tmp_path / "vulns")
    assert finding.pin == Pin("some-thing", "2.9")
    assert finding.advisory == "PYSEC-1, CVE-1: A fault."
    assert pins(lock) == [Pin("some-thing", "2.9"), Pin("other", "1.0")]


# Permissive, or copyleft of files and libraries only: nothing that binds what it is used in.
ACCEPTED = (
    "Apache", "BSD", "CC0", "HPND", "ISC", "LGPL", "Lesser General Public License", "MIT", "MPL",
    "Mozilla Public License", "PSF", "Python Software Foundation", "Public Domain", "Unlicense",
    "Zope", "ZPL", "Zlib", "OpenSSL",
)  # fmt: skip


@pytest.mark.parametrize("image", IMAGES)
def test_every_package_of_an_image_has_a_licence_that_may_be_shipped(image: str) -> None:
    names = [pin.name for pin in pins(REPOSITORY / image / "requirements.lock")]
    assert len(names) > 10
    licences = {
        name: text
        for name in names
        if not any(word in (text := licence(name)) for word in ACCEPTED)
        and text != "not installed here"
    }
    assert licences == {}
