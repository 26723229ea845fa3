"""What is not there is remembered, briefly and boundedly."""

import pytest

from engine import negative
from engine.hot import Kind
from engine.names import Digest, Location, Repository
from engine.negative import Key, NegativeCache


def _key(number: int) -> Key:
    return Kind.BLOB, Location("docker.io", Repository("a")), Digest(f"sha256:{number:064x}")


def test_an_absence_holds_until_its_time() -> None:
    cache = NegativeCache()
    cache.note(_key(1), until=10.0)
    assert cache.holds(_key(1), now=9.9)
    assert not cache.holds(_key(2), now=9.9)
    assert not cache.holds(_key(1), now=10.0)


def test_the_oldest_absence_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(negative, "MAX_ENTRIES", 2)
    cache = NegativeCache()
    for number in (1, 2, 1, 3):
        cache.note(_key(number), until=10.0)
    assert [cache.holds(_key(n), now=0.0) for n in (1, 2, 3)] == [True, False, True]
