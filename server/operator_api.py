"""The operator's API: `/api/v1/…` on the debug port.

Invariant: whatever is asked is first judged by the guard; reading is GET, changing is POST, and a
HEAD or GET never changes anything. Parameters are in the query: this server reads no bodies.
Answers are JSON; an error is `{"error": "…"}` with a status that says whose fault it was. A warm
answers with a line of JSON now and then, and the last line says how it ended.
"""

import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from http import HTTPStatus

import msgspec

from engine.errors import CacheError, InvalidName
from engine.explanation import Inexplicable, Unknown, require_explicable
from engine.fault_log import FaultLog
from engine.subject import UpstreamSubject, parse_subject, parse_upstream
from server.config_tree import InvalidValue
from server.config_values import parse_pin
from server.control_messages import Act, Drain, Pin, Unpin, Warm, purge_of
from server.debug_guard import Guard, Refused
from server.exchange import Exchange
from server.explained import make_explained
from server.operating import NotOpen, Operator
from server.parameters import BadParameter, Parameters
from server.reply import send_whole
from server.response import Field, build_head, content_length

logger = logging.getLogger(__name__)

PREFIX = b"/api/"
_SAFE: list[Field] = [
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
]


class NotAllowed(Exception):
    """A method that is not for this resource, and those that are."""

    def __init__(self, allow: str) -> None:
        super().__init__(f"this is for {allow}")
        self.allow = allow


class OperatorApi:
    """Answers exchanges below `PREFIX`."""

    def __init__(self, operator: Operator, guard: Guard) -> None:
        self._operator = operator
        self._guard = guard
        self._faults = FaultLog()
        self._readers: dict[bytes, tuple[Callable[[Parameters], Awaitable[object]], list[str]]] = {
            b"/api/v1/status": (self._status, []),
            b"/api/v1/explain": (self._explain, ["q"]),
        }
        self._actors: dict[bytes, tuple[Callable[[Parameters], Awaitable[object]], list[str]]] = {
            b"/api/v1/purge": (self._purge, ["ref", "upstream", "dry_run"]),
            b"/api/v1/pin": (self._pin, ["glob"]),
            b"/api/v1/unpin": (self._unpin, ["glob"]),
            b"/api/v1/drain": (self._drain, []),
        }

    async def respond(self, exchange: Exchange) -> None:
        """Judge and answer. `ClientGone` passes through."""
        try:
            await self._answer(exchange)
        except Refused as exc:
            self._note_refusal(exchange, exc)
            send_error(exchange, exc.status, str(exc))
        except NotAllowed as exc:
            allow = ("Allow", exc.allow)
            send_error(exchange, HTTPStatus.METHOD_NOT_ALLOWED, str(exc), allow)
        except (BadParameter, Inexplicable, InvalidName, InvalidValue) as exc:
            send_error(exchange, HTTPStatus.BAD_REQUEST, str(exc))
        except Unknown as exc:
            send_error(exchange, HTTPStatus.NOT_FOUND, str(exc))
        except CacheError as exc:
            if not isinstance(exc, NotOpen):
                logger.warning("operator's request failed cause=%s", exc)
            send_error(exchange, HTTPStatus.SERVICE_UNAVAILABLE, str(exc))

    async def _answer(self, exchange: Exchange) -> None:
        path, _, query = exchange.target.partition(b"?")
        is_reading = exchange.method in (b"GET", b"HEAD")
        if path in self._readers and is_reading:
            self._guard.admit_reader(exchange.header(b"authorization"), exchange.header(b"host"))
            answer, known = self._readers[path]
        elif path in self._actors and exchange.method == b"POST":
            self._guard.admit_actor(exchange.header(b"authorization"))
            answer, known = self._actors[path]
        elif path == b"/api/v1/warm" and exchange.method == b"POST":
            self._guard.admit_actor(exchange.header(b"authorization"))
            await self._warm(exchange, query)
            return
        else:
            self._refuse(path)
            return
        send_json(exchange, HTTPStatus.OK, await answer(Parameters.parse(query, known)))

    def _refuse(self, path: bytes) -> None:
        if path in self._readers:
            raise NotAllowed("GET, HEAD")
        if path in self._actors or path == b"/api/v1/warm":
            raise NotAllowed("POST")
        raise Refused(HTTPStatus.NOT_FOUND, "there is no such resource")

    async def _status(self, _: Parameters) -> object:
        return await self._operator.tell_facts()

    async def _explain(self, given: Parameters) -> object:
        subject = parse_subject(given.get("q").strip(), self._operator.settings.upstreams)
        known = await self._operator.explain(require_explicable(subject))
        return make_explained(known, self._operator.settings, time.time())

    async def _purge(self, given: Parameters) -> object:
        ref, upstream = given.find("ref"), given.find("upstream")
        if bool(ref) == bool(upstream):
            raise BadParameter("name what to purge: by ref, or by upstream")
        subject = (
            parse_subject(ref, self._operator.settings.upstreams)
            if ref
            else UpstreamSubject(parse_upstream(upstream or "", self._operator.settings.upstreams))
        )
        return await self._act(purge_of(subject, is_dry_run=given.is_set("dry_run")))

    async def _pin(self, given: Parameters) -> object:
        return await self._act(Pin(parse_pin(given.get("glob"))))

    async def _unpin(self, given: Parameters) -> object:
        return await self._act(Unpin(parse_pin(given.get("glob"))))

    async def _drain(self, _: Parameters) -> object:
        return self._operator.drain(Drain())

    async def _act(self, act: Act) -> object:
        return await self._operator.act(act)

    async def _warm(self, exchange: Exchange, query: bytes) -> None:
        given = Parameters.parse(query, ["ref", "platform", "all_platforms"])
        command = Warm(given.get("ref"), given.list("platform"), given.is_set("all_platforms"))
        async with aclosing(self._operator.warm(command)) as stages:
            is_begun = False
            async for stage in stages:
                if not is_begun:
                    fields = [("Content-Type", "application/jsonl"), *_SAFE]
                    exchange.status = HTTPStatus.OK
                    await exchange.start(build_head(HTTPStatus.OK, fields), None)
                    is_begun = True
                await exchange.write(encode(stage) + b"\n")
        exchange.finish()

    def _note_refusal(self, exchange: Exchange, refused: Refused) -> None:
        if refused.status is not HTTPStatus.UNAUTHORIZED:
            return
        if exchange.header(b"authorization") is None:
            return
        suppressed = self._faults.admit("token", time.monotonic())
        if suppressed is not None:
            logger.warning(
                "operator's token refused remote=%s suppressed=%d", exchange.remote, suppressed
            )


def encode(document: object) -> bytes:
    """Write a document as JSON; names are a kind of texts."""
    return msgspec.json.encode(document, enc_hook=str)


def send_json(exchange: Exchange, status: HTTPStatus, document: object, *more: Field) -> None:
    """Answer with a document."""
    body = encode(document) + b"\n"
    fields = [("Content-Type", "application/json"), content_length(len(body)), *_SAFE, *more]
    if status is HTTPStatus.UNAUTHORIZED:
        fields.append(("WWW-Authenticate", 'Bearer realm="moorage"'))
    if status is HTTPStatus.SERVICE_UNAVAILABLE:
        fields.append(("Retry-After", "1"))
    send_whole(exchange, status, build_head(status, fields), body)


def send_error(exchange: Exchange, status: HTTPStatus, message: str, *more: Field) -> None:
    """Answer with an error."""
    exchange.cause = message
    send_json(exchange, status, {"error": message}, *more)
