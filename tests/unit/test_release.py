"""A release changes one version everywhere."""

from upkeep import release


def test_every_place_has_the_same_version() -> None:
    assert len(set(release.versions().values())) == 1, release.versions()


def test_a_release_changes_the_version_and_the_changelog_and_nothing_else() -> None:
    (old,) = set(release.versions().values())
    for path, text in release.released("77.0.1", "2026-12-24").items():
        if path.name == "CHANGELOG.md":
            assert text.count("\n## Unreleased\n\n## 77.0.1 (2026-12-24)\n") == 1
        else:
            places = release.PLACES[str(path.relative_to(release.ROOT))]
            assert text.count("77.0.1") == len(places)
            assert text.replace("77.0.1", old) == path.read_text()
