"""What operators write for tags, repositories, digests and upstreams."""

import pytest

from engine.errors import InvalidName
from engine.names import Digest, Location, Repository, Tag
from engine.subject import (
    DigestSubject,
    RepositorySubject,
    Subject,
    TagSubject,
    UpstreamSubject,
    parse_location,
    parse_subject,
    parse_upstream,
)
from server.control_messages import (
    Purge,
    decode_command,
    encode,
    purge_of,
    subject_of,
)
from tests.fakes.upstreams import GHCR, HUB, LOCAL

UPSTREAMS = (HUB, GHCR, LOCAL)
DIGEST = Digest("sha256:" + "0" * 64)
BUSYBOX = Location("docker.io", Repository("library/busybox"))
APP = Location("ghcr.io", Repository("org/app"))
LOCAL_APP = Location("localhost:5001", Repository("org/app"))


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("busybox:1.35", TagSubject(BUSYBOX, Tag("1.35"))),
        ("library/busybox:1.35", TagSubject(BUSYBOX, Tag("1.35"))),
        ("docker.io/busybox:1.35", TagSubject(BUSYBOX, Tag("1.35"))),
        ("index.docker.io/library/busybox", RepositorySubject(BUSYBOX)),
        ("ghcr.io/org/app", RepositorySubject(APP)),
        ("localhost:5001/org/app", RepositorySubject(LOCAL_APP)),
        ("localhost:5001/org/app:v1", TagSubject(LOCAL_APP, Tag("v1"))),
        (f"ghcr.io/org/app@{DIGEST}", DigestSubject(DIGEST, APP)),
        (f"ghcr.io/org/app:v1@{DIGEST}", DigestSubject(DIGEST, APP)),
        (DIGEST, DigestSubject(DIGEST)),
        # Not configured (any more), but a host by its looks.
        ("quay.io/org/app", RepositorySubject(Location("quay.io", Repository("org/app")))),
        ("org/app", RepositorySubject(Location("docker.io", Repository("org/app")))),
    ],
)
def test_a_subject_is_read_as_clients_write_it(text: str, meant: Subject) -> None:
    assert parse_subject(text, UPSTREAMS) == meant


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "Busybox",
        "busybox:",
        "busybox:a b",
        "sha256:0",
        "busybox@sha256:0",
        "../etc/passwd",
        "ghcr.io/",
        "ghcr.io//app",
        "busybox:sha256:0",
    ],
)
def test_what_the_grammar_forbids_is_no_subject(text: str) -> None:
    with pytest.raises(InvalidName):
        parse_subject(text, UPSTREAMS)


def test_an_upstream_is_known_by_any_of_its_names() -> None:
    assert parse_upstream("registry-1.docker.io", UPSTREAMS) == "docker.io"
    assert parse_upstream("quay.io", UPSTREAMS) == "quay.io"
    assert parse_location("busybox", (GHCR,)) == Location("ghcr.io", Repository("busybox"))


@pytest.mark.parametrize(
    "subject",
    [
        TagSubject(BUSYBOX, Tag("1.35")),
        RepositorySubject(APP),
        DigestSubject(DIGEST),
        DigestSubject(DIGEST, APP),
        UpstreamSubject("ghcr.io"),
    ],
    ids=str,
)
def test_a_subject_survives_the_control_socket(subject: Subject) -> None:
    command = decode_command(encode(purge_of(subject, is_dry_run=True)))
    assert isinstance(command, Purge)
    assert command.is_dry_run
    assert subject_of(command) == subject


@pytest.mark.parametrize(
    "purge",
    [
        Purge(),
        Purge(tag="1"),
        Purge(repository="a"),
        Purge(upstream="docker.io", tag="1"),
        Purge(upstream="docker.io", repository="a", tag="1", digest=DIGEST),
        Purge(upstream="docker.io", repository="../a"),
        Purge(digest="sha256:0"),
    ],
)
def test_a_purge_of_nothing_definite_is_refused(purge: Purge) -> None:
    with pytest.raises((InvalidName, ValueError)):
        subject_of(purge)
