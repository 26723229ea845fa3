"""What upstream says of a tag is kept until the manifest is here; its last word counts."""

from engine import announced
from engine.announced import Announced
from engine.index_records import TagRecord
from engine.names import Digest, Location, Repository, Tag

HERE = Location("docker.io", Repository("library/busybox"))
ELSEWHERE = Location("docker.io", Repository("library/alpine"))
FIRST, SECOND = Digest("sha256:" + "1" * 64), Digest("sha256:" + "2" * 64)


def record_of(tag: str, digest: Digest) -> TagRecord:
    return TagRecord(Tag(tag), digest, "a/type", 1, None, 0.0, 0.0)


def test_records_come_with_their_manifest_and_once() -> None:
    noted = Announced()
    records = [record_of("1", FIRST), record_of("latest", FIRST)]
    for record in [*records, record_of("2", SECOND)]:
        noted.note(HERE, record)
    assert noted.take(HERE, FIRST) == records
    assert noted.take(HERE, FIRST) == []
    assert noted.take(HERE, SECOND) == [record_of("2", SECOND)]


def test_a_manifest_of_another_repository_settles_nothing() -> None:
    noted = Announced()
    noted.note(HERE, record_of("1", FIRST))
    assert noted.take(ELSEWHERE, FIRST) == []


def test_a_later_word_displaces_an_earlier_one() -> None:
    noted = Announced()
    noted.note(HERE, record_of("1", FIRST))
    noted.note(HERE, record_of("1", SECOND))
    assert noted.take(HERE, FIRST) == []
    assert noted.take(HERE, SECOND) == [record_of("1", SECOND)]


def test_a_tag_that_is_gone_is_not_recorded() -> None:
    noted = Announced()
    noted.note(HERE, record_of("1", FIRST))
    noted.drop(HERE, Tag("1"))
    noted.drop(HERE, Tag("unheard-of"))
    assert noted.take(HERE, FIRST) == []


def test_the_oldest_gives_way() -> None:
    noted = Announced()
    for number in range(announced.MAX_ENTRIES + 1):
        noted.note(HERE, record_of(f"{number}", FIRST))
    tags = [record.tag for record in noted.take(HERE, FIRST)]
    assert len(tags) == announced.MAX_ENTRIES
    assert tags[0] == "1"
