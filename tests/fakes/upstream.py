"""A scripted upstream registry on loopback: real sockets, real HTTP, and faults on demand.

    async with ScriptedUpstream() as upstream:
        image = upstream.content.add_image("library/busybox", "1.35", (b"layer",))
        upstream.fail(Fault(status=503), kind="blob", times=2)
        ...  # point a mirror at upstream.url, or use upstream.settings()
        assert upstream.count(kind="blob") == 3

Kinds of requests: manifest, blob, tags, referrers, ping, token (the token service), cdn (where
blobs redirect to, once `redirect_blobs` is set), other. It runs in the loop that enters it, or in
a thread of its own (`ThreadedUpstream`) for tests that block or whose mirror is another process.
"""

import asyncio
import itertools
import json
import re
import ssl
import threading
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Self, TypeVar

from engine.settings import UpstreamSettings
from tests.fakes.upstream_auth import Auth, error
from tests.fakes.upstream_content import IMAGE_INDEX, Content
from tests.fakes.upstream_faults import Fault, Gate, Rule
from tests.fakes.upstream_wire import Answer, Listener, Seen

__all__ = ["Fault", "Gate", "Rule", "ScriptedUpstream", "Seen", "ThreadedUpstream"]

_PATH = re.compile(
    r"/v2/(?P<repository>.+)/(?P<kind>manifests|blobs|tags|referrers)/(?P<ref>[^/]+)"
)
_KINDS = {"manifests": "manifest", "blobs": "blob", "tags": "tags", "referrers": "referrers"}
_CODES = {"manifest": "MANIFEST_UNKNOWN", "blob": "BLOB_UNKNOWN"}
_NO_FAULT = Fault()
T = TypeVar("T")


class ScriptedUpstream:
    """The registry, its token service and its CDN. An async context manager."""

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        self.content = Content()
        self.auth = Auth()
        self.requests: list[Seen] = []  # in the order of arrival
        self.rules: list[Rule] = []
        self.path = ""  # a base path, such as `/artifactory/docker`
        self.page_size: int | None = None  # of tags and referrers
        self.has_referrers = True
        self.redirect_blobs: int | None = None  # the status to redirect with, such as 307
        self.answer_headers: dict[str, str] = {}  # on every answer about content
        self.registry = Listener(self._handle, self._notify, tls=tls)
        self.tokens = Listener(self._handle_token, self._notify, tls=tls)
        self.cdn = Listener(self._handle_cdn, self._notify, tls=tls)
        self._signatures: dict[str, bytes] = {}
        self._numbers = itertools.count(1)
        self._changed = asyncio.Event()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        for listener in (self.registry, self.tokens, self.cdn):
            await self._stack.enter_async_context(listener)
        self.auth.realm = self.auth.realm or f"{self.tokens.url}/token"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @property
    def url(self) -> str:
        """The base URL, for `proxy.remoteurl`."""
        return self.registry.url + self.path

    def settings(
        self,
        namespace: str = "docker.io",
        *,
        username: str | None = None,
        password: str | None = None,
        max_connections: int = 32,
    ) -> UpstreamSettings:
        """Settings that lead here. For others, `dataclasses.replace` them."""
        return UpstreamSettings(
            namespace=namespace,
            url=self.url,
            namespaces=(namespace,),
            username=username,
            password=password,
            max_connections=max_connections,
        )

    # Faults

    def fail(
        self,
        fault: Fault,
        *,
        method: str | None = None,
        kind: str | None = None,
        repository: str | None = None,
        reference: str | None = None,
        times: int | None = 1,
    ) -> Rule:
        """Give `fault` to the next `times` (None = all) matching requests; first come first."""
        rule = Rule(
            fault=fault,
            method=method,
            kind=kind,
            repository=repository,
            reference=reference,
            times=times,
        )
        self.rules.append(rule)
        return rule

    def heal(self) -> None:
        """Forget all faults."""
        self.rules.clear()

    def expire_signatures(self) -> None:
        """Make every redirect that was handed out so far lead to a 403."""
        self._signatures.clear()

    async def stop(self) -> None:
        """Refuse connections, cutting those that are open; `start` undoes it."""
        await self.registry.__aexit__()

    async def start(self) -> None:
        """Listen again, on the same port."""
        await self.registry.__aenter__()

    # What happened

    def seen(
        self,
        *,
        method: str | None = None,
        kind: str | None = None,
        repository: str | None = None,
        reference: str | None = None,
    ) -> list[Seen]:
        """List the requests that match so far."""
        probe = Rule(
            fault=_NO_FAULT,
            method=method,
            kind=kind,
            repository=repository,
            reference=reference,
            times=None,
        )
        return [
            r for r in self.requests if probe.matches(r.method, r.kind, r.repository, r.reference)
        ]

    def count(
        self,
        *,
        method: str | None = None,
        kind: str | None = None,
        repository: str | None = None,
        reference: str | None = None,
    ) -> int:
        """Count the requests that match so far."""
        return len(self.seen(method=method, kind=kind, repository=repository, reference=reference))

    async def wait_until(self, is_true: Callable[[], bool]) -> None:
        """Wait, in the upstream's loop, until what is sent or received makes it true."""
        while not is_true():
            await self._changed.wait()

    async def wait_requests(self, count: int, *, kind: str | None = None) -> None:
        """Wait until so many requests of a kind have arrived."""
        await self.wait_until(lambda: self.count(kind=kind) >= count)

    async def wait_sent(self, count_bytes: int, *, kind: str = "blob") -> None:
        """Wait until the bodies of a kind have so many bytes handed to their sockets in all."""
        await self.wait_until(
            lambda: sum(seen.sent_bytes for seen in self.seen(kind=kind)) >= count_bytes
        )

    # Serving

    def _notify(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _fault_of(self, seen: Seen) -> Fault:
        self.requests.append(seen)
        self._notify()
        for rule in self.rules:
            if rule.matches(seen.method, seen.kind, seen.repository, seen.reference):
                rule.hits += 1
                return rule.fault
        return _NO_FAULT

    async def _handle(self, seen: Seen) -> tuple[Answer, Fault]:
        path = seen.path.removeprefix(self.path)
        if match := _PATH.fullmatch(path):
            seen.kind = _KINDS[match["kind"]]
            seen.repository, seen.reference = match["repository"], match["ref"]
        elif path == "/v2/":
            seen.kind = "ping"
        fault = self._fault_of(seen)
        if answer := _scripted(fault) or self.auth.refuse(seen):
            return answer, fault
        answer = self._answer(seen, fault)
        answer.headers.update(self.answer_headers)
        return _damaged(answer, fault), fault

    def _answer(self, seen: Seen, fault: Fault) -> Answer:
        holding = self.content.repositories.get(seen.repository)
        if seen.kind == "ping":
            return Answer(200, {}, b"{}")
        if holding is None:
            return error(404, _CODES.get(seen.kind, "NAME_UNKNOWN"), "unknown")
        match seen.kind:
            case "manifest":
                digest = holding.tags.get(seen.reference, seen.reference)
                if digest in holding.manifests:
                    media_type, body = holding.manifests[digest]
                    headers = {"Content-Type": media_type, "Docker-Content-Digest": digest}
                    return Answer(200, headers, body)
            case "blob":
                if (data := holding.blobs.get(seen.reference)) is not None:
                    if self.redirect_blobs is not None:
                        return self._redirect(seen, data, self.redirect_blobs)
                    return _blob(seen, data, fault)
            case "tags":
                return self._tags(seen, sorted(holding.tags))
            case "referrers" if self.has_referrers:
                return self._referrers(seen, holding.referrers.get(seen.reference, []))
        return error(404, _CODES.get(seen.kind, "NAME_UNKNOWN"), f"no {seen.reference} here")

    def _redirect(self, seen: Seen, data: bytes, status: int) -> Answer:
        signature = str(next(self._numbers))
        self._signatures[signature] = data
        return Answer(
            status, {"Location": f"{self.cdn.url}/{seen.reference}?signature={signature}"}
        )

    def _tags(self, seen: Seen, tags: list[str]) -> Answer:
        last = seen.query.get("last", [""])[0]
        later = [tag for tag in tags if tag > last]
        page = later[: self.page_size]
        headers = self._next_link(seen, page, has_more=len(page) < len(later))
        body = {"name": seen.repository, "tags": page or None}
        return Answer(
            200, {"Content-Type": "application/json", **headers}, json.dumps(body).encode()
        )

    def _referrers(self, seen: Seen, referrers: list[dict[str, object]]) -> Answer:
        last = seen.query.get("last", [""])[0]
        later = [found for found in referrers if str(found["digest"]) > last]
        later.sort(key=lambda found: str(found["digest"]))
        page = later[: self.page_size]
        names = [str(found["digest"]) for found in page]
        headers = self._next_link(seen, names, has_more=len(page) < len(later))
        body = {"schemaVersion": 2, "mediaType": IMAGE_INDEX, "manifests": page}
        return Answer(200, {"Content-Type": IMAGE_INDEX, **headers}, json.dumps(body).encode())

    def _next_link(self, seen: Seen, page: list[str], *, has_more: bool) -> dict[str, str]:
        return {"Link": f'<{seen.path}?last={page[-1]}>; rel="next"'} if has_more else {}

    async def _handle_token(self, seen: Seen) -> tuple[Answer, Fault]:
        seen.kind = "token"
        fault = self._fault_of(seen)
        return _damaged(_scripted(fault) or self.auth.issue(seen), fault), fault

    async def _handle_cdn(self, seen: Seen) -> tuple[Answer, Fault]:
        seen.kind, seen.reference = "cdn", seen.path.removeprefix("/")
        fault = self._fault_of(seen)
        if answer := _scripted(fault):
            return answer, fault
        if seen.header("authorization") is not None or seen.header("cookie") is not None:
            return Answer(400, {}, b"InvalidArgument"), fault
        data = self._signatures.get(seen.query.get("signature", [""])[0])
        if data is None:
            return Answer(403, {}, b"<Error>Request has expired</Error>"), fault
        return _damaged(_blob(seen, data, fault), fault), fault


def _scripted(fault: Fault) -> Answer | None:
    if fault.redirect_to is not None:
        return Answer(fault.status or 307, {"Location": fault.redirect_to})
    if fault.status is not None:
        return error(fault.status, fault.code, fault.message)
    return None


def _damaged(answer: Answer, fault: Fault) -> Answer:
    if fault.body is not None:
        answer.body = fault.body
    if fault.corrupt_at is not None and answer.body:
        body = bytearray(answer.body)
        body[fault.corrupt_at] ^= 1
        answer.body = bytes(body)
    return answer


def _blob(seen: Seen, data: bytes, fault: Fault) -> Answer:
    headers = {"Content-Type": "application/octet-stream", "Docker-Content-Digest": seen.reference}
    asked = re.fullmatch(r"bytes=(\d+)-(\d*)", seen.header("range") or "")
    if asked is None or fault.no_range:
        return Answer(200, headers, data)
    start = int(asked[1]) + fault.range_shift
    end = min(int(asked[2]) + 1 if asked[2] else len(data), len(data))
    if start >= end:
        return Answer(416, {"Content-Range": f"bytes */{len(data)}"})
    headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
    return Answer(206, headers, data[start:end])


class ThreadedUpstream:
    """A `ScriptedUpstream` in a thread with a loop of its own. A context manager.

    What it gives may be read and scripted from outside; `run` awaits something in its loop.
    """

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        self.upstream = ScriptedUpstream(tls=tls)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="scripted-upstream")

    def __enter__(self) -> Self:
        self._thread.start()
        self.run(self.upstream.__aenter__())
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.run(self.upstream.__aexit__())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def run(self, work: Coroutine[object, object, T], timeout_s: float = 30.0) -> T:
        """Await `work` in the upstream's loop, such as `wait_requests`; raises `TimeoutError`."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout_s)
