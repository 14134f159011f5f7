"""Debian packages: what can be tested without fetching any."""

from pathlib import Path

import pytest

from devstack.packages import cache, debian, rabbitmq

STATUS = """\
Package: bash
Status: install ok installed

Package: erlang-base
Status: install ok installed

Package: rabbitmq-server
Status: install ok installed
"""


def test_what_the_system_has_of_rabbitmq_is_not_seen(tmp_path: Path) -> None:
    """The private copy is complete with any installed packages; no package is fetched twice."""
    (tmp_path / "status").write_text(STATUS)
    status = debian.status_without(rabbitmq.OURS, tmp_path / "status")
    assert "bash" in status
    assert "erlang" not in status
    assert "rabbitmq" not in status


def test_the_systems_hooks_and_folders_are_left_out(tmp_path: Path) -> None:
    """Such a hook empties the system's package cache after an update, as in container images."""
    settings = (
        'APT::Update::Post-Invoke:: "rm -f /var/cache/apt/archives/*.deb";\n'
        'DPkg::Post-Invoke:: "rm -f /var/cache/apt/archives/*.deb";\n'
        'Dir::Cache "var/cache/apt";\n'
        'Acquire::http::Proxy "http://proxy:3128";\n'
    )
    configuration = debian.configuration(tmp_path, settings)
    assert "rm -f" not in configuration
    assert "var/cache/apt" not in configuration
    assert 'Acquire::http::Proxy "http://proxy:3128";' in configuration
    assert f'Dir::State "{tmp_path / "state"}";' in configuration


def test_plugins_are_linked_with_all_they_need(tmp_path: Path) -> None:
    plugins = tmp_path / "usr/lib/rabbitmq/lib/rabbitmq_server-9/plugins"
    needs = {"rabbit": "[kernel,\n ra]", "ra": "[kernel,aten]", "aten": "[]", "mqtt": "[rabbit]"}
    for name, listed in needs.items():
        (plugins / f"{name}-1.2" / "ebin").mkdir(parents=True)
        app = f'{{application,{name},[{{vsn,"1.2"}},{{applications,{listed}}}]}}.'
        (plugins / f"{name}-1.2" / "ebin" / f"{name}.app").write_text(app)
    rabbitmq.link_plugins(tmp_path)
    links = tmp_path / "plugins"
    assert {link.name for link in links.iterdir()} == {"rabbit-1.2", "ra-1.2", "aten-1.2"}
    assert (links / "ra-1.2" / "ebin" / "ra.app").exists()


def test_a_kept_folder_is_made_once_and_never_seen_half_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise debian.FetchFailed("no network")

    with pytest.raises(debian.FetchFailed):
        cache.keep("thing", fail)
    assert not cache.kept("thing")
    thing = cache.keep("thing", lambda folder: (folder / "whole").touch())
    assert [path.name for path in thing.iterdir()] == ["whole"]
    assert cache.keep("thing", fail) == thing
    assert [path.name for path in thing.parent.iterdir()] == ["thing"]


def test_the_quicker_of_two_runs_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def be_overtaken(folder: Path) -> None:
        (folder / "slow").touch()
        cache.keep("thing", lambda other: (other / "quick").touch())

    winner = cache.keep("thing", be_overtaken)
    assert [path.name for path in winner.iterdir()] == ["quick"]


def test_without_apt_the_way_out_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(debian.FetchFailed, match="ORDERS_AMQP_URL"):
        rabbitmq.RELEASE.unpack(tmp_path)
