"""Releases: Debian packages that are fetched and kept together."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from devstack.packages import cache, debian


@dataclass(frozen=True)
class Release:
    """Debian packages, unpacked into one folder in the user's cache.

    `pattern` and `absent` are those of `debian.fetch`; `finish` changes the unpacked files, and
    `advice` is what a user can do if they cannot be fetched.
    """

    name: str
    # Increase it when the unpacked files change, so that older caches are not used.
    recipe: int
    roots: tuple[str, ...]
    pattern: str | None = None
    absent: str = debian.NOTHING
    finish: Callable[[Path], None] | None = None
    advice: str = ""

    def folder(self) -> Path:
        """Return the folder, named after the distribution, the architecture and the recipe."""
        return cache.root() / f"{self.name}-{debian.system()}-{self.recipe}"

    def cached(self) -> bool:
        """Return whether the folder is complete."""
        return self.folder().exists()

    def fetch(self) -> Path:
        """Return the folder, fetching the packages once.

        Raises: debian.FetchFailed when they are not cached and cannot be fetched.
        """
        return cache.keep(self.folder().name, self.unpack)

    def unpack(self, folder: Path) -> None:
        """Fetch and unpack the packages, and write a list of them. Raises: debian.FetchFailed."""
        try:
            files = debian.fetch(self.roots, folder, self.pattern, self.absent)
        except debian.FetchFailed as error:
            message = f"Debian's {self.roots[0]} cannot be fetched: {error}\n{self.advice}".rstrip()
            raise debian.FetchFailed(message) from error
        if self.finish:
            self.finish(folder)
        (folder / "packages.txt").write_text("\n".join(files) + "\n")
