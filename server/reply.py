"""Whole answers other than content: JSON documents, 304, and errors.

Invariant: each call answers the exchange exactly once and sets its log fields. An answer to HEAD
has the head that GET would get, and no body.
"""

from collections.abc import Iterable

from server.errors import Problem
from server.exchange import Exchange
from server.request_id import FIELD, identify
from server.response import JSON, Field, build_head, content_length, namespace_line


def send_document(
    exchange: Exchange,
    body: bytes,
    last_lines: bytes,
    fields: Iterable[Field] = (),
    *,
    media_type: str = JSON,
) -> None:
    """Answer 200 with a JSON document; `fields` are further header fields."""
    first = [("Content-Type", media_type), content_length(len(body))]
    send_whole(exchange, 200, build_head(200, [*first, *fields]) + last_lines, body)


def send_not_modified(exchange: Exchange, fields: Iterable[Field], last_lines: bytes) -> None:
    """Answer 304. Of `fields` all but the type of the body go along (RFC 9110 §15.4.5)."""
    kept = [(name, value) for name, value in fields if name != "Content-Type"]
    send_whole(exchange, 304, build_head(304, kept) + last_lines)


def send_problem(exchange: Exchange, problem: Problem, namespace: str = "") -> None:
    """Answer with an error, and note its cause for the access log."""
    body = problem.body()
    exchange.cause = problem.message
    exchange.cache_status = ""
    exchange.stands_on = None  # it bears the name of one request, so it is no other's answer
    named = (FIELD, identify(exchange))
    fields = [("Content-Type", JSON), content_length(len(body)), named, *problem.fields]
    head = build_head(problem.status, fields) + namespace_line(namespace)
    send_whole(exchange, problem.status, head, body)


def send_whole(exchange: Exchange, status: int, head: bytes, body: bytes = b"") -> None:
    """Answer in one write, without the body where the method is HEAD."""
    exchange.status = status
    exchange.send(head, b"" if exchange.method == b"HEAD" else body)
