"""Swagger UI at `/docs`, with all its files served from here.

The packaged Swagger UI (4.15, in swagger-ui-bundle 1.1) refuses OpenAPI 3.1. Our
document uses only what 3.0 and 3.1 share, so the page relabels it as 3.0. Swagger UI 5 would not
need that.
"""

from importlib import resources
from typing import Final

import falcon
from falcon import Request, Response

from orders.api.resource import Operation, ResponseDoc

# Swagger UI sets style attributes and draws icons from data: URLs.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_PAGE: Final = b"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Orders API</title>
<link rel="stylesheet" href="/docs/swagger-ui.css">
<link rel="icon" type="image/png" href="/docs/favicon-32x32.png">
</head>
<body>
<div id="swagger-ui"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""
_START: Final = b"""fetch("/openapi.json").then((answer) => answer.json()).then((spec) => {
  spec.openapi = "3.0.3";
  SwaggerUIBundle({ spec, dom_id: "#swagger-ui", deepLinking: true });
});
"""
_TYPES: Final = {".css": "text/css", ".js": "text/javascript", ".png": "image/png"}
_PACKAGED: Final = ("swagger-ui.css", "swagger-ui-bundle.js", "favicon-32x32.png")


class DocsPage:
    """Swagger UI at `/docs`."""

    operations: Final = {
        "GET": Operation(
            id="docs",
            summary="Show this document",
            answers={200: ResponseDoc(description="A page.")},
        )
    }

    def on_get(self, _req: Request, resp: Response) -> None:
        """Answer with the page and its Content-Security-Policy."""
        resp.data = _PAGE
        resp.content_type = "text/html; charset=utf-8"
        resp.set_header("Content-Security-Policy", _POLICY)
        resp.set_header("Referrer-Policy", "no-referrer")

    on_head = on_get


class Asset:
    """`/docs/{name}`: the page's own script, and the files of the package."""

    operations: Final = {
        "GET": Operation(
            id="docsAsset", summary="A part of the page",
            answers={200: ResponseDoc(description="A script, style sheet or picture.")},
        )
    }  # fmt: skip

    def __init__(self) -> None:
        self._files = {"start.js": _START}

    def on_get(self, _req: Request, resp: Response, name: str) -> None:
        """Answer with a file, which is read from the package at its first request."""
        resp.data = self._read(name)
        resp.content_type = _TYPES[name[name.rindex(".") :]]
        resp.set_header("Cache-Control", "public, max-age=3600")

    on_head = on_get

    def _read(self, name: str) -> bytes:
        if name not in self._files:
            if name not in _PACKAGED:
                raise falcon.HTTPRouteNotFound
            folder = resources.files("swagger_ui_bundle").joinpath("vendor")
            release = next(
                entry for entry in folder.iterdir() if entry.name.startswith("swagger-ui-")
            )
            self._files[name] = release.joinpath(name).read_bytes()
        return self._files[name]
