"""Tracebacks in the log: whole, but for what URLs hide."""

import json
import logging
import sys

import pytest

from server.logs import LineFormatter
from server.settings import LogFormat


def log_failure(log_format: LogFormat, text: str) -> str:
    """Log an exception that quotes `text`, and one that it caused."""
    try:
        try:
            raise LookupError(text)
        except LookupError as exc:
            raise RuntimeError(f"while asking: {exc!r}") from exc
    except RuntimeError:
        record = logging.LogRecord("x", logging.ERROR, __file__, 1, "failed", None, sys.exc_info())
    return LineFormatter(log_format, {}).format(record)


@pytest.mark.parametrize("log_format", list(LogFormat))
@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("https://cdn.test/a/b?X-Amz-Signature=s3cret", "https://cdn.test/a/b"),
        ("400, url='https://ann:s3cret@cdn.test/a#s3cret', x", "cdn.test/a"),
        ("b'Location: https://ann:s3/s3cret@cdn.test?s3cret'", "cdn.test"),
        ("http://one.test?s3cret http://two.test/?s3cret", "http://two.test/"),
    ],
)
def test_a_traceback_bears_no_signature_and_no_login(
    log_format: LogFormat, text: str, kept: str
) -> None:
    line = log_failure(log_format, text)
    assert "s3cret" not in line
    assert kept in line
    assert "test_logs.py" in line
    assert "direct cause" in line
    if log_format is not LogFormat.TEXT:
        json.loads(line)
