"""The virtual environment is made in the clone, and empties nothing else."""

from pathlib import Path

import pytest

from devstack.bootstrap import SetupFailed, refuse_link


def test_an_environment_that_is_a_link_to_another_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    link = tmp_path / ".venv"
    link.symlink_to(other)
    with pytest.raises(SetupFailed, match="symbolic link"):
        refuse_link(link)


def test_an_environment_that_is_a_folder_or_missing_is_made(tmp_path: Path) -> None:
    refuse_link(tmp_path)
    refuse_link(tmp_path / "missing")
