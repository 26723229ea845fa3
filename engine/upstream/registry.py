"""An upstream registry over HTTP: the `Upstream` that the cache asks.

Source: OCI distribution-spec "Pulling"; Docker Hub's quirks as noted where they matter.
"""

from dataclasses import dataclass, replace

import aiohttp
from multidict import CIMultiDictProxy
from yarl import URL

from engine.errors import (
    BlobUnknown,
    ManifestUnknown,
    NotFound,
    RepositoryUnknown,
    UpstreamProtocolError,
)
from engine.live_views import UpstreamView
from engine.names import Digest, Reference, Repository
from engine.settings import UpstreamSettings
from engine.upstream.api import BlobStream, ManifestBody, ManifestHead, TagList
from engine.upstream.auth import Authenticator
from engine.upstream.body import HTTPBlobStream
from engine.upstream.caller import Ask, Caller, TargetDenied
from engine.upstream.client import Client
from engine.upstream.clock import loop_now
from engine.upstream.courier import Courier, read_body
from engine.upstream.credentials import Credentials
from engine.upstream.guard import RateGuard
from engine.upstream.kinds import Counts, Kind, RateLimit
from engine.upstream.lane import Slot
from engine.upstream.limits import Limits
from engine.upstream.operation import Operations
from engine.upstream.pages import merge_referrers, merge_tags
from engine.upstream.reply import content_length, digest_header, media_type, next_page
from engine.upstream.span import range_header, read_span
from engine.upstream.token_service import TokenService
from engine.upstream.tokens import TokenCache

_DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class _Reply:
    """A small response, read."""

    headers: CIMultiDictProxy[str]
    body: bytes


class Registry:
    """Implements `Upstream`. Nothing is contacted until something is asked for.

    `counts` and `rate_limit` are for metrics: read them at any time.
    """

    def __init__(self, settings: UpstreamSettings, limits: Limits = _DEFAULT_LIMITS) -> None:
        self.settings = settings
        self.counts = Counts()
        self.rate_limit: RateLimit | None = None
        self._limits = limits
        self._client = Client(limits)
        courier = Courier(self._client, limits, self.counts)
        guard = self._guard = RateGuard(settings.namespace, limits, self.counts)
        self._auth = _authenticator(settings, limits, courier, guard, self.counts)
        self._caller = Caller(courier, self._auth, guard, limits, self._note_limits)
        self._operations = Operations(
            settings.namespace, settings.max_connections, limits, self.counts, guard
        )

    def _note_limits(self, limits: RateLimit) -> None:
        self.rate_limit = limits

    async def head_manifest(
        self, repository: Repository, reference: Reference, *, deadline: float
    ) -> ManifestHead:
        """`HEAD` a manifest; not billed by Docker Hub. 405 is an `UpstreamProtocolError`."""
        reply = await self._fetch(self._manifest("HEAD", repository, reference), deadline)
        return ManifestHead(
            digest=digest_header(reply.headers),
            size_bytes=content_length(reply.headers),
            media_type=media_type(reply.headers),
            etag=reply.headers.get("ETag"),
        )

    async def get_manifest(
        self, repository: Repository, reference: Reference, *, deadline: float
    ) -> ManifestBody:
        """`GET` a manifest, whole within the deadline; Docker Hub bills it."""
        reply = await self._fetch(self._manifest("GET", repository, reference), deadline)
        self.counts.billable_manifest_gets += 1
        self.counts.manifest_bytes += len(reply.body)
        return ManifestBody(
            body=reply.body,
            media_type=media_type(reply.headers),
            digest=digest_header(reply.headers),
            etag=reply.headers.get("ETag"),
        )

    async def head_blob(
        self, repository: Repository, digest: Digest, *, deadline: float
    ) -> int | None:
        """`HEAD` a blob: its size in bytes, None where upstream does not say.

        Where upstream redirects to storage that refuses a HEAD, it said at least that the
        repository has the blob.
        """
        ask = self._ask(Kind.HEAD, "HEAD", repository, f"blobs/{digest}", BlobUnknown)
        try:
            reply = await self._fetch(ask, deadline)
        except TargetDenied:
            return None
        return content_length(reply.headers)

    async def open_blob(
        self,
        repository: Repository,
        digest: Digest,
        *,
        start: int = 0,
        end: int | None = None,
        deadline: float,
    ) -> BlobStream:
        """Open a blob's bytes `start` up to but without `end` (None = to its end).

        The stream holds one of the connections until it is closed.
        """
        ask = self._ask(Kind.BLOB, "GET", repository, f"blobs/{digest}", BlobUnknown)
        ask = replace(ask, range=range_header(start, end))

        async def attempt(slot: Slot) -> BlobStream:
            response = await self._caller.call(ask)
            try:
                span = read_span(response.status, response.headers, start, end, ask.what)
            except UpstreamProtocolError:
                response.close()
                raise
            return HTTPBlobStream(
                response,
                span,
                start=start,
                stall_s=self._limits.stall_s,
                release=slot.release,
                counts=self.counts,
            )

        return await self._operations.run(Kind.BLOB, deadline, attempt)

    async def list_tags(self, repository: Repository, *, deadline: float) -> TagList:
        """Fetch all pages of `tags/list`."""
        ask = self._ask(Kind.LIST, "GET", repository, "tags/list", RepositoryUnknown)
        return TagList(merge_tags(await self._fetch_pages(ask, deadline), ask.what))

    async def get_referrers(
        self, repository: Repository, digest: Digest, *, deadline: float
    ) -> bytes | None:
        """Fetch all pages of the referrers API merged into one image index, unfiltered.

        None where upstream does not know the API (404; ghcr.io redirects to one).
        """
        ask = self._ask(Kind.LIST, "GET", repository, f"referrers/{digest}", RepositoryUnknown)
        try:
            pages = await self._fetch_pages(ask, deadline)
        except RepositoryUnknown:
            return None
        return merge_referrers(pages, ask.what)

    def look(self) -> UpstreamView:
        """Tell how it fares; asks nobody."""
        now = loop_now()
        return UpstreamView(
            self.settings.namespace,
            self.settings.url,
            self._operations.look(now),
            self._guard.look(now),
            self.rate_limit,
            self.counts.requests.total(),
            self.counts.billable_manifest_gets,
            self.counts.copy(),
        )

    async def aclose(self) -> None:
        """Close all connections; token fetches and helpers under way are stopped."""
        await self._auth.aclose()
        await self._client.aclose()

    def _ask(
        self, kind: Kind, method: str, repository: Repository, path: str, not_found: type[NotFound]
    ) -> Ask:
        # Names are checked by their grammar: nothing in them needs an escape.
        url = URL(f"{self.settings.url}/v2/{repository}/{path}", encoded=True)
        return Ask(kind, method, url, repository, f"{repository} {path}", not_found)

    def _manifest(self, method: str, repository: Repository, reference: Reference) -> Ask:
        kind = Kind.HEAD if method == "HEAD" else Kind.MANIFEST
        return self._ask(kind, method, repository, f"manifests/{reference}", ManifestUnknown)

    async def _fetch(self, ask: Ask, deadline: float) -> _Reply:
        """Fetch something small, its whole body within an attempt."""

        async def attempt(slot: Slot) -> _Reply:
            try:
                response = await self._caller.call(ask)
                body = await read_body(response, self._limits.max_manifest_bytes)
            finally:
                slot.release()
            self._check_small(ask, response, len(body))
            return _Reply(response.headers, body)

        return await self._operations.run(ask.kind, deadline, attempt)

    def _check_small(self, ask: Ask, response: aiohttp.ClientResponse, size_bytes: int) -> None:
        if size_bytes > self._limits.max_manifest_bytes:
            limit = self._limits.max_manifest_bytes
            raise UpstreamProtocolError(f"{ask.what}: larger than {limit} bytes")
        # The same rule as for blobs: a body that was asked whole, as it is.
        if response.status != 200:
            raise UpstreamProtocolError(f"{ask.what}: {response.status} without a Range")
        read_span(response.status, response.headers, 0, None, ask.what)

    async def _fetch_pages(self, ask: Ask, deadline: float) -> list[bytes]:
        pages: list[bytes] = []
        size_bytes = 0
        page: Ask | None = ask
        while page is not None:
            reply = await self._fetch(page, deadline)
            pages.append(reply.body)
            size_bytes += len(reply.body)
            if len(pages) > self._limits.max_pages or size_bytes > self._limits.max_list_bytes:
                raise UpstreamProtocolError(f"{ask.what}: the list does not end")
            url = next_page(page.url, reply.headers)
            page = None if url is None else replace(ask, url=url)
        return pages


def _authenticator(
    settings: UpstreamSettings, limits: Limits, courier: Courier, guard: RateGuard, counts: Counts
) -> Authenticator:
    url = URL(settings.url)
    credentials = Credentials(settings, limits, counts)
    service = TokenService(url, courier, credentials, guard, counts)
    tokens = TokenCache(lambda grant: service.fetch(grant, limits.attempt_s), limits)
    return Authenticator(url, credentials, tokens, limits)
