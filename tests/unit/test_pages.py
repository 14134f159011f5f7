"""Pages lead where they say: links, the table of contents, and the files of one order's way."""

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
DOCS = REPOSITORY / "docs"
TESTS = REPOSITORY / "tests"
PAGES = sorted({*REPOSITORY.glob("*.md"), *DOCS.rglob("*.md"), REPOSITORY / "loadtest/README.md"})
CODE_FILE = re.compile(r"`([\w/]+\.(?:py|sql|conf|lua))`")
CODE = re.compile(r"^```.*?^```|^    .*?$", re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", CODE.sub("", page.read_text()), re.MULTILINE)
    words = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {text.replace(" ", "-") for text in words}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", CODE.sub("", page.read_text())):
        path, _, anchor = link.partition("#")
        if not link.startswith(("http", "mailto:")):
            target = (page.parent / path).resolve() if path else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


def test_the_table_of_contents_has_every_page() -> None:
    contents = (DOCS / "README.md").read_text()
    pages = [page.relative_to(DOCS) for page in DOCS.rglob("*.md") if page != DOCS / "README.md"]
    unlisted = [str(page) for page in pages if f"({page}" not in contents]
    assert unlisted == [], "list these pages in docs/README.md"


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: page.name)
def test_a_page_says_at_once_whom_it_is_for(page: Path) -> None:
    assert re.match(r"# .+\n\nFor ", page.read_text()), "begin with: For people who …"


def test_the_files_of_one_orders_way_are_there() -> None:
    files = CODE_FILE.findall((DOCS / "one-order.md").read_text())
    folders = (REPOSITORY, REPOSITORY / "services/orders")
    assert files
    assert [name for name in files if not any((top / name).exists() for top in folders)] == []


def test_the_readme_names_the_first_file_of_each_hop() -> None:
    page = (DOCS / "one-order.md").read_text()
    first = re.findall(r"^\| (\w+) \| `([^`]+)`", page, re.MULTILINE)
    readme = (REPOSITORY / "README.md").read_text()
    assert first
    assert re.findall(r"^\d+\. (\w+): `([^`]+)`", readme, re.MULTILINE) == first


def test_test_files_that_pages_name_exist() -> None:
    tests = {path.name for path in TESTS.rglob("test_*.py")}
    named = {
        (page.name, name)
        for page in PAGES
        for name in re.findall(r"\btest_\w+\.py\b", page.read_text())
    }
    assert len(named) > 50
    assert [name for name in named if name[1] not in tests] == []


def test_tests_that_pages_name_exist() -> None:
    """A page may give the beginning of a name, followed by `…`."""
    files = list(TESTS.rglob("test_*.py"))
    source = "\n".join(path.read_text() for path in files)
    tests = {*re.findall(r"\bdef (test_\w+)", source), *(path.stem for path in files)}
    beginnings = {test[:end] + "…" for test in tests for end in range(len("test_"), len(test))}
    named = {
        (page.name, name)
        for page in PAGES
        for name in re.findall(r"\b(test_\w+(?!\w|\.py\b)…?)", page.read_text())
    }
    assert len(named) > 50
    names = tests | beginnings
    assert [name for name in named if name[1] not in names] == []


def test_contributing_lists_every_folder_of_tests() -> None:
    text = (REPOSITORY / "CONTRIBUTING.md").read_text()
    listed = re.findall(r"^\| `tests/(\w+)` \|", text, re.MULTILINE)
    assert sorted(listed) == sorted({path.parent.name for path in TESTS.glob("*/*.py")})


def test_each_feature_of_the_operators_capability_level_has_evidence() -> None:
    section = (DOCS / "operator.md").read_text().split("## Capability level")[1].split("\n## ")[0]
    _, _, *rows = re.findall(r"^\|(.*)\|(.*)\|(.*)\|$", section, re.MULTILINE)
    assert [level.split()[0] for level, _, _ in rows if level.strip()] == list("12345")
    for _, feature, evidence in rows:
        assert re.search(r"test_\w+\.py|^ not", evidence), feature
