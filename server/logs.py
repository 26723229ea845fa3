"""How log lines look, and where they go: one line an event, to stderr.

Invariant: every line bears its time in UTC, its level, its message and the configured fields, in
distribution's three formats; a message never breaks its line. Messages are made without secrets;
tracebacks, which quote whatever was under way, are cleared of what URLs may hide.
"""

import json
import logging
import re
import sys
import time

from server.settings import LogFormat, LogSettings

# distribution's level names; the others that it takes are mapped in the configuration.
_LEVELS = {
    "error": logging.ERROR,
    "warn": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
}
# An URL: scheme, userinfo, place, and what follows it, up to what ends a quotation of it.
_URL = re.compile(r"(\w+://)(?:[^\s'\"]*@)?([^\s?#'\"]*)(?:[?#][^\s'\"]*)?")
_NAMES = {number: name for name, number in _LEVELS.items()} | {logging.CRITICAL: "error"}


def set_up(settings: LogSettings) -> None:
    """Send the logs of the whole process to stderr as configured, replacing earlier handlers."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter(settings.formatter, settings.fields))
    logging.basicConfig(handlers=[handler], level=_LEVELS[settings.level], force=True)


def format_time(unix_s: float) -> str:
    """Write a time as RFC 3339 has it, in UTC, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(unix_s))


def render_fields(log_format: LogFormat, fields: dict[str, str]) -> str:
    """Render configured fields once, to be appended to every line of that format."""
    if log_format is LogFormat.TEXT:
        return "".join(f" {name}={_quote(value)}" for name, value in fields.items())
    return "".join(f",{json.dumps(name)}:{json.dumps(value)}" for name, value in fields.items())


def describe_peer(peername: object) -> str:
    """Give a peer's address: without its port, IPv4 as IPv4, a unix socket as `unix`."""
    if not isinstance(peername, tuple):
        return "unix"
    return str(peername[0]).removeprefix("::ffff:")


def leave_query_out(target: bytes) -> bytes:
    """Leave the query out of a request's target: it may hold a secret."""
    return target.partition(b"?")[0]


class LineFormatter(logging.Formatter):
    """Formats a record as text, as JSON with logrus's keys, or as logstash's JSON (version 1)."""

    def __init__(self, log_format: LogFormat, fields: dict[str, str]) -> None:
        super().__init__()
        self._format = log_format
        self._fields = render_fields(log_format, fields)

    def format(self, record: logging.LogRecord) -> str:
        """Render a record; a traceback follows its message, in JSON within it."""
        message = record.getMessage()
        if record.exc_info:
            traceback = _URL.sub(r"\1\2", self.formatException(record.exc_info))
            message = f"{message}\n{traceback}"
        at = format_time(record.created)
        level = _NAMES.get(record.levelno, "info")
        match self._format:
            case LogFormat.TEXT:
                first, *rest = message.splitlines() or [""]
                return "\n  ".join([f"{at} {level} {first}{self._fields}", *rest])
            case LogFormat.JSON:
                head = f'"level":"{level}","msg":{json.dumps(message)},"time":"{at}"'
                return f"{{{head}{self._fields}}}"
            case LogFormat.LOGSTASH:
                head = f'"@timestamp":"{at}","@version":"1","level":"{level}"'
                return f'{{{head},"message":{json.dumps(message)}{self._fields}}}'


def _quote(value: str) -> str:
    return value if value.isascii() and value.isalnum() else json.dumps(value)
