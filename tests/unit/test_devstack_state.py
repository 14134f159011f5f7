"""The state folder of the local stack."""

import shutil
from pathlib import Path

import pytest

from devstack import state, unprivileged


def test_secrets_are_made_once_and_are_private(tmp_path: Path) -> None:
    first = state.load_secrets(tmp_path)
    assert state.load_secrets(tmp_path) == first
    assert (tmp_path / "secrets.json").stat().st_mode & 0o777 == 0o600
    assert len(set(first.values())) == len(first)


def test_a_secret_that_is_missing_is_added_to_the_others(tmp_path: Path) -> None:
    (tmp_path / "secrets.json").write_text('{"postgres": "kept"}')
    assert state.load_secrets(tmp_path)["postgres"] == "kept"
    assert state.load_secrets(tmp_path)["cursor"]


def test_a_locked_folder_is_not_taken_or_removed(tmp_path: Path) -> None:
    with state.locked(tmp_path):
        assert state.is_locked(tmp_path)
        with pytest.raises(state.StateError, match="already running"), state.locked(tmp_path):
            pass
        with pytest.raises(state.StateError, match="end it first"):
            state.clean(tmp_path)
    assert not state.is_locked(tmp_path)


def test_only_a_state_folder_is_removed(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    with pytest.raises(state.StateError, match="does not look like"):
        state.clean(tmp_path)
    assert (tmp_path / "precious").exists()


def test_what_the_folder_links_to_is_removed_with_it(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "state", tmp_path / "elsewhere"
    elsewhere.mkdir()
    with state.locked(folder):
        (folder / "postgres").symlink_to(elsewhere)
    state.clean(folder)
    assert not elsewhere.exists()
    assert not folder.exists()


def test_removing_what_is_not_there_is_no_error(tmp_path: Path) -> None:
    state.clean(tmp_path / "nothing")


def test_data_outside_of_a_folder_that_is_gone_is_not_taken_over(tmp_path: Path) -> None:
    """Its servers have the password of a state that was deleted."""
    link = tmp_path / "state" / "postgres"
    real = unprivileged.outside(link, tmp_path)
    (real / "data").mkdir()
    (real / "data" / "PG_VERSION").touch()
    assert unprivileged.outside(link, tmp_path) == real
    assert (link / "data" / "PG_VERSION").exists(), "a restart keeps it"
    shutil.rmtree(link.parent)
    assert unprivileged.outside(link, tmp_path) == real
    assert list(link.iterdir()) == []
