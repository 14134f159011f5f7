"""Checks of the images that need no build."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import meinheld_wheel
from devstack import lock

REPOSITORY = Path(__file__).resolve().parents[2]
IMAGES = sorted(lock.IMAGES)


def dockerfile(image: str) -> str:
    return (REPOSITORY / image / "Dockerfile").read_text()


def pins(name: str) -> dict[str, str]:
    """Give each locked package with its versions, markers and hashes."""
    entries = re.split(r"^(?=[a-z])", (REPOSITORY / name).read_text(), flags=re.MULTILINE)
    return {entry.split(" ")[0]: entry for entry in entries if "==" in entry}


@pytest.mark.parametrize("image", IMAGES)
def test_hadolint_has_nothing_to_say(image: str) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    process = subprocess.run(
        [hadolint, REPOSITORY / image / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert (process.returncode, process.stdout) == (0, "")


@pytest.mark.parametrize("image", IMAGES)
def test_what_an_image_installs_is_what_was_tested(image: str) -> None:
    tested, pins_of_image = pins("requirements.lock"), pins(f"{image}/requirements.lock")
    assert pins_of_image.keys() <= tested.keys()
    assert all("--hash=sha256:" in entry for entry in pins_of_image.values())


@pytest.mark.parametrize("image", IMAGES)
def test_bases_are_pinned_by_digest_and_no_root_runs(image: str) -> None:
    text = dockerfile(image)
    assert len(re.findall(r"^ARG \w+_IMAGE=\S+@sha256:[0-9a-f]{64}$", text, re.MULTILINE)) == 2
    assert re.findall(r"^USER (.+)$", text, re.MULTILINE) == ["10001:10001"]
    stages = set(re.findall(r" AS (\S+)$", text, re.MULTILINE))
    bases = set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) - stages
    assert bases == {"${BUILD_IMAGE}", "${RUN_IMAGE}"}


def test_nothing_for_development_is_in_the_image_that_is_made_by_default() -> None:
    *_, last = re.split(r"^FROM ", dockerfile("services"), flags=re.MULTILINE)
    assert last == "run\n"


@pytest.mark.parametrize("image", IMAGES)
def test_what_is_copied_is_given_to_the_build(image: str) -> None:
    """A person's files stay out of builds: what .dockerignore does not name is not there."""
    context = [line[1:] for line in (REPOSITORY / ".dockerignore").read_text().splitlines()]
    copies = re.findall(r"^COPY (?!--from)(.+) \S+$", dockerfile(image), re.MULTILINE)
    for source in " ".join(copies).split():
        assert (REPOSITORY / source).exists()
        assert any(source == path or source.startswith(f"{path}/") for path in context), source


def test_meinheld_is_compiled_as_it_is_here() -> None:
    assert "python -m meinheld_wheel services/requirements.lock wheels" in dockerfile("services")
    entry_here, image = (meinheld_wheel.entry(REPOSITORY / name) for name in (
        "requirements.lock", "services/requirements.lock"
    ))  # fmt: skip
    assert entry_here == image


def test_both_images_have_the_same_bases() -> None:
    bases = [re.findall(r"^ARG \w+_IMAGE=.*$", dockerfile(image), re.MULTILINE) for image in IMAGES]
    assert bases[0] == bases[1]
