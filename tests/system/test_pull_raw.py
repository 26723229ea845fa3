"""Many plain clients at a time: what upstream is asked, and what it costs the mirror."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from tests.fakes.distribution import Registry
from tests.fakes.images_catalogue import BIG_LAYER_BYTES, catalogue
from tests.fakes.mirror import Site
from tests.fakes.token_server import TokenServer
from tests.system.conftest import USER
from tests.system.raw import Answer, ask

pytestmark = pytest.mark.system

HERD_COUNT = 50


def ask_at_once(address: str, targets: list[str]) -> list[Answer]:
    """Let a client for each of `targets` ask at the same moment."""
    start = Barrier(len(targets))

    def ask_one(target: str) -> Answer:
        start.wait()
        return ask(address, target)

    with ThreadPoolExecutor(len(targets)) as pool:
        return list(pool.map(ask_one, targets))


def gets_since(upstream: Registry, before: Counter[tuple[str, str]]) -> dict[str, int]:
    """Count the GETs with content by path."""
    asked = upstream.counts() - before
    return {path: count for (method, path), count in asked.items() if method == "GET"}


def test_fifty_clients_on_one_cold_blob_cost_one_upstream_get(
    site: Site, upstream: Registry
) -> None:
    image = catalogue().herd
    blob = image.top.layers[0].blob
    target = f"/v2/{image.repository}/blobs/{blob.digest}"
    before = upstream.counts()
    with site.start() as mirror:
        answers = ask_at_once(mirror.address, [target] * HERD_COUNT)
    assert {(answer.status, answer.digest) for answer in answers} == {(200, blob.digest)}
    assert gets_since(upstream, before) == {target: 1}


def test_fifty_clients_on_one_cold_tag_cost_one_upstream_get(
    site: Site, upstream: Registry
) -> None:
    image = catalogue().herd
    manifests = f"/v2/{image.repository}/manifests"
    before = upstream.counts()
    with site.start() as mirror:
        answers = ask_at_once(mirror.address, [f"{manifests}/{image.tag}"] * HERD_COUNT)
    assert {(answer.status, answer.body) for answer in answers} == {(200, image.top.blob.data)}
    assert gets_since(upstream, before) == {f"{manifests}/{image.top.blob.digest}": 1}


def test_a_whole_pull_costs_one_challenge_and_one_token(
    site: Site, upstream: Registry, tokens: TokenServer
) -> None:
    image = catalogue().deep
    base = f"/v2/{image.repository}"
    served, issued = len(upstream.served()), len(tokens.requests())
    with site.start() as mirror:
        assert ask(mirror.address, f"{base}/manifests/{image.tag}").status == 200
        targets = [f"{base}/blobs/{blob.digest}" for blob in image.top.blobs]
        answers = ask_at_once(mirror.address, targets)
    assert [answer.digest for answer in answers] == [blob.digest for blob in image.top.blobs]
    assert [line.status for line in upstream.served()[served:]].count(401) == 1
    (request,) = tokens.requests()[issued:]
    assert request.user == USER


def test_a_big_blob_is_never_held_in_memory(site: Site) -> None:
    image = catalogue().big
    blob = image.top.layers[0].blob
    target = f"/v2/{image.repository}/blobs/{blob.digest}"
    with site.start() as mirror:
        before = mirror.child.peak_rss_bytes
        answers = ask_at_once(mirror.address, [target] * 4)
        growth_bytes = mirror.child.peak_rss_bytes - before
    assert {answer.digest for answer in answers} == {blob.digest}
    assert growth_bytes < BIG_LAYER_BYTES // 2
