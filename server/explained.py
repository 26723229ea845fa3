"""An explanation as a document: the same names as `inspect-index explain --json`. Pure."""

import msgspec

from engine.explanation import Explanation, is_fresh
from engine.settings import EngineSettings


class ExplainedLink(msgspec.Struct, frozen=True):
    """A repository that knows the digest; `state`: named or held."""

    repository: str
    kind: str
    state: str
    media_type: str | None
    linked_at: float


class ExplainedTag(msgspec.Struct, frozen=True):
    """A tag that means the digest. `freshness`: what a pull by it does."""

    tag: str
    checked_at: float
    changed_at: float
    freshness: str


class ExplainedContent(msgspec.Struct, frozen=True):
    """What the manifest names."""

    digest: str
    size_bytes: int
    media_type: str
    is_stored: bool


class Explained(msgspec.Struct, tag="explained", frozen=True):
    """All that is known of a tag or digest; None where it is not stored."""

    subject: str
    digest: str
    kind: str
    media_type: str | None
    path: str
    is_stored: bool
    size_bytes: int | None
    is_public: bool | None
    stored_at: float | None
    used_at: float | None
    use_count: int | None
    verified_at: float | None
    fate: str | None
    expires_at: float | None
    rank: int | None
    needed_bytes: int | None
    pins: str | None
    links: list[ExplainedLink]
    tags: list[ExplainedTag]
    named: list[ExplainedContent]


def make_explained(known: Explanation, settings: EngineSettings, now: float) -> Explained:
    """Write an explanation as a document."""
    blob, fate = known.blob, known.fate
    return Explained(
        str(known.subject),
        known.digest,
        known.kind,
        ", ".join(known.media_types) or None,
        known.path,
        blob is not None,
        blob.size_bytes if blob else None,
        blob.is_public if blob else None,
        blob.stored_at if blob else None,
        blob.used_at if blob else None,
        blob.use_count if blob else None,
        blob.verified_at if blob else None,
        fate.text if fate else None,
        fate.expires_at if fate else None,
        fate.rank if fate else None,
        fate.needed_bytes if fate else None,
        ", ".join(fate.pins) or None if fate else None,
        [
            ExplainedLink(
                f"{each.upstream}/{each.repository}",
                each.kind,
                each.state,
                each.media_type or None,
                each.linked_at,
            )
            for each in known.links
        ],
        [
            ExplainedTag(
                each.name,
                each.checked_at,
                each.changed_at,
                describe_pull(is_fresh=is_fresh(each, settings.upstreams, now)),
            )
            for each in known.tags
        ],
        [
            ExplainedContent(
                each.descriptor.digest,
                each.descriptor.size_bytes,
                each.descriptor.media_type,
                each.is_stored,
            )
            for each in known.named
        ],
    )


def describe_pull(*, is_fresh: bool) -> str:
    """Say what a pull by a tag does."""
    return "is answered without asking upstream" if is_fresh else "asks upstream first"
