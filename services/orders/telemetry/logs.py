"""Structured logs: one JSON object a line in a pod, colours on a terminal.

Every line carries `Application`, `host`, `process`, and inside of work the correlation and trace
id. Values are ids and facts; payloads and secrets are never logged.
"""

import datetime as dt
import logging
import os
import re
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TextIO

import msgspec
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from orders.errors import SettingError
from orders.settings import LogSettings
from orders.telemetry import context

APPLICATION: Final = "OrderService"
_LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}
# Libraries whose lines below this level only repeat ours.
_QUIET: Final = {"pika": logging.CRITICAL, "urllib3": logging.ERROR, "yoyo": logging.WARNING}
# PostgreSQL's details of an error quote the row: remove them up to the end of that exception.
_ROW: Final = re.compile(
    r"\n(?:DETAIL|CONTEXT): .*?(?=\n\nThe above exception|\n\nDuring handling|\Z)", re.DOTALL
)


STDOUT: Final = 1
STDERR: Final = 2
_AddFields = Callable[[WrappedLogger, str, EventDict], EventDict]
_log = structlog.get_logger()
_encoder: Final = msgspec.json.Encoder(enc_hook=repr)
# As many bytes as a pipe takes at once (PIPE_BUF): lines of several processes do not mix.
_BATCH_BYTES: Final = 4096
# `write` needs no structlog with them; None before `configure`, and on a terminal.
_add_fields: _AddFields | None = None
_lines: "_Lines | None" = None
_level = _LEVELS["info"]


def configure(settings: LogSettings, process: str, *, descriptor: int = STDOUT) -> None:
    """Send all lines of this process, those of libraries included, to stdout (and the file).

    A command, whose answer goes to stdout, gives the `descriptor` of stderr.
    """
    console = settings.format == "console" or (
        settings.format == "auto" and _stream(descriptor).isatty()
    )
    add_fields = _fields_adder(process)
    processors: list[Processor] = [add_fields]
    level = _LEVELS[settings.level]
    lines = _Lines(_sinks(settings, descriptor)[1 if console else 0 :])
    logger = logging.getLogger("orders") if console else lines
    structlog.configure(
        processors=[*processors, structlog.stdlib.ProcessorFormatter.wrap_for_formatter]
        if console
        else [*processors, _traceback, _render_json],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_args: logger,
        cache_logger_on_first_use=True,
    )
    handlers: list[logging.Handler] = (
        [_terminal(processors, _stream(descriptor))] if console else []
    )
    _route_stdlib(settings, processors, handlers, lines)
    global _add_fields, _lines, _level  # structlog's own configuration is the process's, too
    _add_fields, _lines, _level = None if console else add_fields, lines, level


def write(method: str, event: str, fields: EventDict) -> None:
    """Write the line that `structlog.get_logger().<method>(event, **fields)` writes.

    For the line of every request: without structlog's bound logger it costs 3 us instead of 10.
    There is no exception in it. `fields` becomes the line, so do not use it afterwards.
    """
    if _add_fields is None or _lines is None:
        getattr(_log, method)(event, **fields)
    elif _LEVELS[method] >= _level:
        fields["event"] = event
        _lines.add(_encoder.encode(_add_fields(None, method, fields)) + b"\n")


def start_batching() -> None:
    """Write the lines of `write` several at a time. Call it after fork.

    Only for a process that calls `flush_lines` all the time. One that is killed loses the lines
    since then, at most 4 KiB.
    """
    if _lines is not None:
        _lines.batching = True


def flush_lines() -> None:
    """Write the lines that wait."""
    if _lines is not None:
        _lines.flush()


def stop_batching() -> None:
    """Write the lines that wait, and each further one at once."""
    if _lines is not None:
        _lines.batching = False
        _lines.flush()


def _stream(descriptor: int) -> TextIO:
    return sys.stderr if descriptor == STDERR else sys.stdout


# Without the rows that PostgreSQL quotes.
_traceback: Final = structlog.processors.ExceptionRenderer(
    lambda exc_info: _ROW.sub("", "".join(traceback.format_exception(*exc_info)).rstrip("\n"))
)


def _fields_adder(process: str) -> _AddFields:
    """Return the processor that adds the fields of every line.

    It is a single one, because each takes as long as the whole encoding.
    """
    host = socket.gethostname()

    def add(_logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        event["level"] = "error" if method == "exception" else method
        event["timestamp"] = dt.datetime.now(dt.UTC)
        event["Application"] = APPLICATION
        event["host"] = host
        event["process"] = process
        ids = context.current()
        if ids is not None:
            event.setdefault("correlationId", ids.correlation_id)
            event.setdefault("traceId", ids.trace_id)
        return event

    return add


def _render_json(_logger: WrappedLogger, _method: str, event: EventDict) -> bytes:
    return _encoder.encode(event) + b"\n"


class DailyFile:
    """A file of JSON lines, a new one each day (UTC): `orders.log` → `orders-2026-01-31.log`.

    Each process appends whole lines, so several may write to the same file.
    """

    def __init__(self, path: Path, keep_days: int) -> None:
        self._path, self._keep = path, keep_days
        self._day: dt.date | None = None
        self._file: int | None = None
        self._lock = threading.Lock()

    def write(self, line: bytes) -> None:
        """Append one line to today's file."""
        today = dt.datetime.now(dt.UTC).date()
        with self._lock:
            if self._file is None or today != self._day:
                self._open(today)
            if self._file is not None:
                os.write(self._file, line)

    def _open(self, today: dt.date) -> None:
        if self._file is not None:
            os.close(self._file)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        name = self._path.with_stem(f"{self._path.stem}-{today}")
        self._file = os.open(name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
        self._day = today
        pattern = self._path.with_stem(f"{self._path.stem}-[0-9]*-[0-9]*-[0-9]*")
        for path in sorted(self._path.parent.glob(pattern.name))[: -self._keep]:
            path.unlink(missing_ok=True)


class _Standard:
    """Takes whole lines, so that those of several processes on one pipe do not mix."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, line: bytes) -> None:
        """Write whole lines, in several pieces if the pipe is full."""
        view = memoryview(line)
        while view:
            view = view[os.write(self._descriptor, view) :]


class _Lines:
    """Structlog's logger: takes rendered lines. Threads may share it."""

    def __init__(self, sinks: list[Any]) -> None:
        self.sinks = sinks
        self.batching = False
        self._batch: list[bytes] = []
        self._batch_bytes = 0
        self._lock = threading.RLock()  # signal handlers write lines, too

    def msg(self, line: bytes) -> None:
        """Write a line now, after those that wait."""
        if self._batch:
            self.flush()
        self._emit(line)

    def add(self, line: bytes) -> None:
        """Write a line now or, where lines are batched, together with others."""
        if not self.batching:
            self.msg(line)
            return
        with self._lock:
            if self._batch_bytes + len(line) > _BATCH_BYTES:
                self.flush()
            self._batch.append(line)
            self._batch_bytes += len(line)

    def flush(self) -> None:
        """Write the lines that wait."""
        with self._lock:
            lines, self._batch, self._batch_bytes = b"".join(self._batch), [], 0
            if lines:
                self._emit(lines)

    def _emit(self, lines: bytes) -> None:
        """Write whole lines to every sink; a full disk must not fail a request."""
        for sink in self.sinks:
            try:
                sink.write(lines)
            except OSError:
                continue

    debug = info = warning = warn = error = critical = exception = fatal = log = msg


def _sinks(settings: LogSettings, descriptor: int) -> list[Any]:
    sinks: list[Any] = [_Standard(descriptor)]
    if settings.file:
        sinks.append(_daily_file(Path(settings.file), settings.file_days))
    return sinks


def _daily_file(path: Path, keep_days: int) -> DailyFile:
    file = DailyFile(path, keep_days)
    try:
        file.write(b"")
    except OSError as error:  # later failures are ignored, so report this one now
        raise SettingError(f"ORDERS_LOG_FILE: cannot write {path}: {error.strerror}") from error
    return file


class _LineHandler(logging.Handler):
    def __init__(self, lines: _Lines) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.msg(self.format(record).encode() + b"\n")


def _terminal(processors: list[Processor], stream: TextIO) -> logging.Handler:
    handler = logging.StreamHandler(stream)
    renderer = structlog.dev.ConsoleRenderer(
        colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback
    )
    handler.setFormatter(_formatter(processors, renderer))
    return handler


def _route_stdlib(
    settings: LogSettings,
    processors: list[Processor],
    handlers: list[logging.Handler],
    lines: _Lines,
) -> None:
    """Format the lines of libraries like ours; on a terminal, send ours through logging too."""
    if lines.sinks:
        handler = _LineHandler(lines)
        render = _formatter(processors, lambda *line: _render_json(*line)[:-1].decode())
        handler.setFormatter(render)
        handlers.append(handler)
    logging.basicConfig(handlers=handlers, level=_LEVELS[settings.level], force=True)
    for name, level in _QUIET.items():
        logging.getLogger(name).setLevel(level)


def _formatter(processors: list[Processor], renderer: Processor) -> logging.Formatter:
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*processors, structlog.stdlib.ExtraAdder()],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            _traceback,
            renderer,
        ],
    )
