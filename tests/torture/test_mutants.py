"""Every mutant still fits the code that it is planted in, and changes it."""

import shutil
from pathlib import Path

import pytest

from devstack.settings import SOURCE
from torture import proof


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("sources") / "services"
    shutil.copytree(
        SOURCE / "orders", copy / "orders", ignore=shutil.ignore_patterns("__pycache__")
    )
    return copy


def touched(mutant: str) -> list[str]:
    """Return the files that a mutant's patch changes or adds."""
    lines = (proof.MUTANTS / f"{mutant}.patch").read_text().splitlines()
    return [line.removeprefix("+++ b/") for line in lines if line.startswith("+++ ")]


def test_there_are_twenty() -> None:
    assert len(proof.names()) >= 20


@pytest.mark.parametrize("mutant", proof.names())
def test_a_mutant_fits_and_compiles(mutant: str, sources: Path, tmp_path: Path) -> None:
    services = tmp_path / "services"
    for file in touched(mutant):
        original, copy = sources.parent / file, tmp_path / file
        copy.parent.mkdir(parents=True, exist_ok=True)
        if original.exists():
            shutil.copy(original, copy)
    proof.apply(mutant, services)
    for file in touched(mutant):
        changed = tmp_path / file
        original = sources.parent / file
        assert not original.exists() or changed.read_text() != original.read_text()
        if file.endswith(".py"):
            compile(changed.read_text(), file, "exec")
