"""Annotations in Grafana: when a load test ran and how it ended. Never a reason to fail."""

import time
from collections.abc import Mapping

import msgspec

from loadtest.target import http


class Created(msgspec.Struct):
    """The id that Grafana gave to a new annotation."""

    id: int


class Annotation:
    """One region on every dashboard that shows annotations tagged `loadtest`."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        """Read `LOADTEST_GRAFANA_*`; without an address nothing is annotated."""
        self._url = environ.get("LOADTEST_GRAFANA_URL", "").rstrip("/")
        token = environ.get("LOADTEST_GRAFANA_TOKEN")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._id: int | None = None

    def begin(self, scenario: str, run: str) -> None:
        """Begin the annotation of a run."""
        body = {
            "time": _now_ms(),
            "tags": ["loadtest", scenario],
            "text": f"load test {scenario} ({run}) began",
        }
        if answer := self._send("POST", "/api/annotations", body):
            self._id = msgspec.json.decode(answer, type=Created).id

    def end(self, text: str) -> None:
        """Make it a region that ends now, with the verdict."""
        if self._id is not None:
            self._send(
                "PATCH", f"/api/annotations/{self._id}", {"timeEnd": _now_ms(), "text": text}
            )

    def _send(self, method: str, path: str, body: object) -> bytes | None:
        if not self._url:
            return None
        try:
            return http.send(method, self._url + path, body, self._headers)
        except http.Unreachable as error:
            print(f"  Grafana got no annotation: {error}")
            return None


def _now_ms() -> int:
    return int(time.time() * 1000)
