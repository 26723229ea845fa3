"""`inspect-index`, `purge`, `pin` on a stopped cache: output piped and as JSON, and exit codes."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from engine.instance_lock import InstanceLock
from engine.layout import Layout
from tests.fakes.damage import blob_path, lose_index
from tests.fakes.stocked import Stock, stock
from tools.cli import main

Tool = Callable[..., Result]

CONFIG = """
version: 0.1
proxy: {remoteurl: https://registry-1.docker.io, ttl: 720h, tagttl: 1h}
upstreams: {ghcr.io: {}}
eviction: {maxsize: 1GB, minfree: 0%}
"""


@pytest.fixture
def stocked(tmp_path: Path) -> Stock:
    return stock(tmp_path / "data")


@pytest.fixture
def tool(stocked: Stock, tmp_path: Path) -> Tool:
    """Run a command on the stocked data directory; output is piped."""
    config = tmp_path / "config.yml"
    config.write_text(CONFIG)

    def run(*arguments: str) -> Result:
        options = ["--data", str(stocked.path), "--config", str(config)]
        return CliRunner().invoke(main, [*arguments, *options], env={"COLUMNS": "40"})

    return run


def lines(result: Result) -> list[list[str]]:
    assert result.exit_code == 0, result.output
    return [line.split("\t") for line in result.stdout.splitlines()]


def document(result: Result) -> dict[str, object]:
    assert result.exit_code == 0, result.output
    found: dict[str, object] = json.loads(result.stdout)
    return found


def test_blobs_are_one_a_line_and_whole(tool: Tool, stocked: Stock) -> None:
    rows = lines(tool("inspect-index", "blobs"))
    assert [row[0] for row in rows] == sorted(stocked.all_digests())
    assert {len(row) for row in rows} == {10}
    assert {row[2] for row in rows} == {"manifest", "blob"}


def test_filters_narrow_and_sorting_orders(tool: Tool, stocked: Stock) -> None:
    largest = lines(tool("inspect-index", "blobs", "--sort", "size_bytes", "--limit", "1"))
    assert int(largest[0][1]) == 30_000
    sizes = [int(row[1]) for row in lines(tool("inspect-index", "blobs", "--sort", "size_bytes"))]
    assert sizes == sorted(sizes, reverse=True)
    reverse = lines(tool("inspect-index", "blobs", "--sort", "size_bytes", "--reverse"))
    assert [int(row[1]) for row in reverse] == sorted(sizes)
    assert len(lines(tool("inspect-index", "blobs", "--upstream", "ghcr.io"))) == 4
    assert len(lines(tool("inspect-index", "blobs", "--repository", "other"))) == 4
    assert len(lines(tool("inspect-index", "blobs", "--larger-than", "29KB"))) == 1
    assert lines(tool("inspect-index", "blobs", "--older-than", "1h")) == []
    assert lines(tool("inspect-index", "blobs", "--unused-since", "2020-01-01")) == []
    assert len(lines(tool("inspect-index", "blobs", "--unused-since", "2999-01-01T00:00Z"))) == 13


def test_repositories_tell_what_is_theirs_alone(tool: Tool) -> None:
    rows = lines(tool("inspect-index", "repositories", "--sort", "stored_bytes"))
    assert rows[0][:2] == ["docker.io", "library/busybox"]
    assert all(int(row[5]) - int(row[6]) == 30_000 for row in rows)
    assert len(lines(tool("inspect-index", "repositories", "--upstream", "index.docker.io"))) == 2


def test_tags_tell_what_they_mean_and_whether_upstream_would_be_asked(
    tool: Tool, stocked: Stock
) -> None:
    found = document(tool("inspect-index", "tags", "--json"))["tags"]
    assert isinstance(found, list)
    by_name = {tag["name"]: tag for tag in found}
    assert by_name.keys() == stocked.images.keys()
    busybox = by_name["docker.io/library/busybox:1.35"]
    image = stocked.images["docker.io/library/busybox:1.35"]
    assert (busybox["digest"], busybox["is_stored"]) == (image.manifest, True)
    assert busybox["is_fresh"]
    assert not by_name["ghcr.io/org/app:v1"]["is_fresh"]  # its tagttl is 0


def test_the_summary_counts_everything(tool: Tool, stocked: Stock) -> None:
    found = document(tool("inspect-index", "summary", "--json"))
    assert found["blob_count"] == len(stocked.all_digests())
    assert (found["tag_count"], found["repository_count"]) == (4, 3)
    assert found["limit_bytes"] == 10**9
    assert found["used_bytes"] == found["blob_disk_bytes"]
    assert (found["server_pid"], found["hit_share"]) == (None, None)
    ages = found["ages"]
    assert isinstance(ages, list)
    assert sum(age["blob_count"] for age in ages) == found["blob_count"]
    assert ages[0]["blob_count"] == found["blob_count"]
    assert [line[0] for line in lines(tool("inspect-index", "summary"))][:2] == [
        "data_directory",
        "blob_count",
    ]


def test_explain_tells_what_it_is_who_has_it_and_when_it_goes(tool: Tool, stocked: Stock) -> None:
    image = stocked.images["docker.io/library/busybox:1.35"]
    found = document(tool("inspect-index", "explain", "busybox:1.35", "--json"))
    assert (found["digest"], found["kind"], found["is_stored"]) == (
        image.manifest,
        "manifest",
        True,
    )
    assert found["path"] == str(blob_path(stocked.path, image.manifest))
    stored_at, expires_at = found["used_at"], found["expires_at"]
    assert isinstance(stored_at, float)
    assert expires_at == stored_at + 720 * 3600
    assert isinstance(found["needed_bytes"], int)
    named = found["named"]
    assert isinstance(named, list)
    assert {each["digest"] for each in named} == {image.config, *image.layers}
    assert all(each["is_stored"] for each in named)
    base = document(tool("inspect-index", "explain", image.layers[0], "--json"))
    links = base["links"]
    assert isinstance(links, list)
    assert [link["repository"] for link in links] == [
        "docker.io/library/busybox",
        "docker.io/library/other",
        "ghcr.io/org/app",
    ]


def test_explain_names_the_pin_that_keeps_something(tool: Tool, stocked: Stock) -> None:
    layer = stocked.images["ghcr.io/org/app:v1"].layers[1]
    assert lines(tool("pin", "ghcr.io/org/*:v*"))[1] == ["outcome", "pinned"]
    found = document(tool("inspect-index", "explain", layer, "--json"))
    assert (found["pins"], found["expires_at"], found["rank"]) == ("ghcr.io/org/*:v*", None, None)
    victims = document(tool("inspect-index", "victims", "100", "--json"))["victims"]
    assert isinstance(victims, list)
    assert layer not in {each["digest"] for each in victims}
    assert lines(tool("unpin", "ghcr.io/org/*:v*"))[1] == ["outcome", "unpinned"]
    assert document(tool("inspect-index", "explain", layer, "--json"))["pins"] is None


def test_victims_are_ranked_to_the_number_asked_for(tool: Tool, stocked: Stock) -> None:
    rows = lines(tool("inspect-index", "victims", "5"))
    assert [row[0] for row in rows] == ["1", "2", "3", "4", "5"]
    assert {row[1] for row in rows} <= stocked.all_digests()
    assert len(lines(tool("inspect-index", "victims"))) == 13


def test_check_exits_one_with_a_line_for_each_finding(tool: Tool, stocked: Stock) -> None:
    assert lines(tool("inspect-index", "check")) == []
    lost = stocked.images["ghcr.io/org/app:v1"].layers[1]
    blob_path(stocked.path, lost).unlink()
    done = tool("inspect-index", "check")
    assert done.exit_code == 1
    (line,) = done.stdout.splitlines()
    kind, path, digest, _, action = line.split("\t")
    assert (kind, path, digest) == ("missing-file", str(blob_path(stocked.path, lost)), lost)
    assert action
    assert (
        json.loads(tool("inspect-index", "check", "--json").stdout)["findings"][0]["path"] == path
    )


def test_check_finds_a_damaged_index_and_rebuild_replaces_it(tool: Tool, stocked: Stock) -> None:
    index = Layout(stocked.path).index_path
    index.write_bytes(b"garbage" * 5000)
    done = tool("inspect-index", "check")
    assert done.exit_code == 1
    assert done.stdout.startswith(f"damaged-index\t{index}\t-\t")
    rebuilt = document(tool("inspect-index", "rebuild", "--json"))
    assert rebuilt["file_count"] == len(stocked.all_digests())
    assert rebuilt["damage"]
    assert Path(str(rebuilt["set_aside"])).read_bytes() == b"garbage" * 5000
    assert lines(tool("inspect-index", "check")) == []


def test_rebuild_brings_a_lost_index_back_from_the_files(tool: Tool, stocked: Stock) -> None:
    lose_index(stocked.path)
    assert tool("inspect-index", "blobs").exit_code == 1
    rebuilt = document(tool("inspect-index", "rebuild", "--json"))
    assert rebuilt["adopted_count"] == len(stocked.all_digests())
    assert len(lines(tool("inspect-index", "blobs"))) == len(stocked.all_digests())


def test_what_needs_the_lock_names_who_has_it(tool: Tool, stocked: Stock) -> None:
    lock = InstanceLock(Layout(stocked.path).lock_path)
    try:
        for command in (["inspect-index", "rebuild"], ["purge", "busybox"], ["pin", "a/b:c"]):
            refused = tool(*command)
            assert (refused.exit_code, refused.stdout) == (2, "")
            assert f"pid {os.getpid()}" in refused.stderr
    finally:
        lock.release()


def test_purge_says_what_goes_and_a_dry_run_keeps_it(tool: Tool, stocked: Stock) -> None:
    image = stocked.images["docker.io/library/busybox:1.34"]
    dry = document(tool("purge", "busybox:1.34", "--dry-run", "--json"))
    assert (dry["is_dry_run"], dry["blob_count"]) == (True, 3)
    assert blob_path(stocked.path, image.manifest).exists()
    wet = document(tool("purge", "busybox:1.34", "--json"))
    assert wet == dry | {"is_dry_run": False}
    assert not blob_path(stocked.path, image.manifest).exists()
    assert blob_path(stocked.path, image.layers[0]).exists()
    again = document(tool("purge", "busybox:1.34", "--json"))
    assert (again["tag_count"], again["blob_count"]) == (0, 0)
    assert lines(tool("inspect-index", "check")) == []


def test_purge_takes_a_repository_a_digest_or_an_upstream(tool: Tool, stocked: Stock) -> None:
    base = stocked.images["ghcr.io/org/app:v1"].layers[0]
    assert document(tool("purge", "other", "--json"))["kept_count"] == 1
    assert document(tool("purge", f"busybox@{base}", "--json"))["blob_count"] == 0
    assert document(tool("purge", "--upstream", "ghcr.io", "--json"))["blob_count"] == 4
    assert document(tool("purge", "--upstream", "docker.io", "--json"))["tag_count"] == 2
    assert lines(tool("inspect-index", "blobs")) == []
    assert list((stocked.path / "blobs").rglob("*/??/*")) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["inspect-index", "explain"],
        ["inspect-index", "explain", "Busybox"],
        ["inspect-index", "explain", "busybox"],
        ["inspect-index", "victims", "0"],
        ["inspect-index", "blobs", "--sort", "beauty"],
        ["inspect-index", "blobs", "--older-than", "yesterday"],
        ["inspect-index", "blobs", "--older-than", "7"],
        ["inspect-index", "blobs", "--larger-than", "big"],
        ["inspect-index", "tags", "--larger-than", "1MB"],
        ["inspect-index", "dance"],
        ["purge"],
        ["purge", "busybox", "--upstream", "docker.io"],
        ["purge", "sha256:0"],
        ["pin", "everything"],
        ["pin", "docker.io/library/a:1 b"],
    ],
)
def test_wrong_usage_is_two(tool: Tool, arguments: list[str]) -> None:
    refused = tool(*arguments)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert refused.stderr


def test_what_is_unknown_is_one(tool: Tool) -> None:
    for what in ("busybox:9", "sha256:" + "0" * 64):
        refused = tool("inspect-index", "explain", what)
        assert (refused.exit_code, refused.stdout) == (1, "")
        assert what in refused.stderr
    refused = tool("inspect-index", "explain", "busybox:9", "--json")
    assert "busybox:9" in json.loads(refused.stdout)["error"]


def test_a_directory_that_is_no_cache_is_two(tmp_path: Path) -> None:
    for path in (tmp_path / "absent", tmp_path):
        for command in (["inspect-index", "blobs"], ["verify-digests"], ["purge", "busybox"]):
            refused = CliRunner().invoke(main, [*command, "--data", str(path)])
            assert refused.exit_code == 2
            assert str(path) in refused.stderr
    assert list(tmp_path.iterdir()) == []
