"""A server on `meinheld.server` that answers what it read, as JSON, on a Unix socket."""

import os
import socket
import sys
from collections.abc import Iterable
from typing import Any

import msgspec
from meinheld import server


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Answer the request as JSON; one for /rss with the bytes of memory in use, /end ends it."""
    if environ["PATH_INFO"] == "/rss":
        with open("/proc/self/statm") as statm:  # noqa: PTH123 no file object left behind
            body = str(int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")).encode()
    else:
        body = _describe(environ)
    if environ["PATH_INFO"] == "/end":
        server.stop(1)
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [b"" if environ["REQUEST_METHOD"] == "HEAD" else body]


def _describe(environ: dict[str, Any]) -> bytes:
    body = environ["wsgi.input"].read()
    fields = {name[5:]: text for name, text in environ.items() if name.startswith("HTTP_")}
    for name in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        if name in environ:
            fields[name] = environ[name]
    return msgspec.json.encode({
        "method": environ["REQUEST_METHOD"],
        "path": environ["PATH_INFO"],
        "query": environ.get("QUERY_STRING", ""),
        "body": len(body),
        "fields": fields,
    })  # fmt: skip


def main(path: str) -> None:
    """Serve on a Unix socket."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(128)
    listener.setblocking(False)
    server.set_keepalive(5)
    server.set_max_content_length(1024 * 1024)
    server.set_client_body_buffer_size(1024 * 1024)
    server.set_access_logger(None)
    server.set_listen_socket([listener.fileno()])
    server.run(application, silent=True)


if __name__ == "__main__":
    main(sys.argv[1])
