"""The index of a process that was killed in the middle of writes."""

import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from engine.index import Index
from engine.names import Tag
from tests.component.index_child import LAYER_COUNT
from tests.component.index_examples import HERE, blob_of, digest_of, manifest_link_of, tag_of

pytestmark = pytest.mark.anyio

# What a manifest's one transaction makes: each tag with its blob, its links and their repository.
_HALF_WRITTEN = f"""
    SELECT tag.tag FROM tag
    LEFT JOIN blob ON blob.digest = tag.digest
    LEFT JOIN link ON link.digest = tag.digest AND link.repository_id = tag.repository_id
    WHERE blob.digest IS NULL OR link.state IS NOT 'held'
    UNION ALL
    SELECT 'counts' WHERE
        (SELECT count(*) FROM tag) <> (SELECT count(*) FROM blob)
        OR (SELECT count(*) FROM tag) * {LAYER_COUNT}
            <> (SELECT count(*) FROM link WHERE state = 'named')
"""


def run_until_killed(path: Path, confirmed_count: int) -> list[int]:
    """Let a child write, kill it in the middle, and return what it said was committed."""
    command = [sys.executable, "-m", "tests.component.index_child", str(path)]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        first = [child.stdout.readline() for _ in range(confirmed_count)]
        child.kill()
        lines = first + child.stdout.readlines()
    # The last line may have been cut off by the kill.
    return [int(line) for line in lines if line.endswith(b"\n")]


def query(path: Path, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


@pytest.mark.parametrize("confirmed_count", [1, 7, 200])
async def test_opens_after_kill_9_with_all_that_was_confirmed_and_nothing_by_halves(
    tmp_path: Path, confirmed_count: int
) -> None:
    path = tmp_path / "index.sqlite3"
    confirmed = run_until_killed(path, confirmed_count)
    assert len(confirmed) >= confirmed_count
    index = await Index.open(path)
    try:
        for number in confirmed:
            found = await index.find(HERE, digest_of(number))
            assert found == (manifest_link_of(number), replace(blob_of(number), is_trusted=False))
            expected = tag_of(number, f"t{number}")
            assert await index.find_tag(HERE, Tag(expected.tag)) == expected
    finally:
        await index.aclose()
    assert query(path, "PRAGMA integrity_check") == [("ok",)]
    assert query(path, "PRAGMA foreign_key_check") == []
    assert query(path, _HALF_WRITTEN) == []


async def test_survives_one_kill_after_another(tmp_path: Path) -> None:
    path = tmp_path / "index.sqlite3"
    confirmed = {number for _ in range(3) for number in run_until_killed(path, 5)}
    index = await Index.open(path)
    try:
        assert (await index.usage()).blob_count >= len(confirmed)
    finally:
        await index.aclose()
    assert query(path, _HALF_WRITTEN) == []
