"""One line per record: time, level, logger, node, text; or the same as JSON. Never object data, never passwords."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import IO


class LineFormatter(logging.Formatter):
    """`2026-01-02T03:04:05.678Z INFO neo.runtime node=S1 text`; a traceback follows on lines of its own."""

    def __init__(self, node: str) -> None:
        super().__init__()
        self._node = node

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        text = record.getMessage().replace("\n", "\\n")
        line = f"{_time(record)} {record.levelname} {record.name} node={self._node} {text}"
        if record.exc_info:
            line = f"{line}\n{self.formatException(record.exc_info)}"
        return line


class JsonFormatter(logging.Formatter):
    """An object per line, with a traceback as text in it."""

    def __init__(self, node: str) -> None:
        super().__init__()
        self._node = node

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        fields = {
            "time": _time(record),
            "level": record.levelname,
            "logger": record.name,
            "node": self._node,
            "text": record.getMessage(),
        }
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False)


def set_up(node: str, level: str = "INFO", as_json: bool = False, stream: IO[str] | None = None) -> None:
    """Send every record from *level* on to *stream* (stderr if None). Replaces what an earlier call has set up."""
    handler = logging.StreamHandler(sys.stderr if stream is None else stream)
    handler.setFormatter(JsonFormatter(node) if as_json else LineFormatter(node))
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{int(record.msecs):03d}Z"
