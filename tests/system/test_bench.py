"""`tools/bench` as people run it: it measures side by side, and names what it cannot."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tools.bench_servers import find_program

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]


def bench(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [str(ROOT / "tools" / "bench"), *options]
    env = {**os.environ, **environment}
    return subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=240, check=False
    )


def require(*programs: str) -> None:
    for name in programs:
        if find_program(name) is None:
            pytest.skip(f"not installed: {name}")


def test_moorage_and_nginx_are_measured_side_by_side(tmp_path: Path) -> None:
    require("wrk", "nginx")
    done = bench(
        "--quick", "--only", "manifest", "--only", "cold-32-limited",
        "--target", "moorage", "--target", "nginx",
        "--json", str(tmp_path / "result.json"), "--chart", str(tmp_path / "chart.svg"),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["case=manifest", "target=moorage"],
        ["case=manifest", "target=nginx"],
        ["case=cold-32-limited", "target=moorage"],
    ]
    warm, cold = json.loads((tmp_path / "result.json").read_text())["cases"]
    for result in warm["results"]:
        assert result["samples"][0]["request_count"] > 0
        assert result["samples"][0]["failed_count"] == 0
    (sample,) = cold["results"][0]["samples"]
    assert (sample["request_count"], sample["upstream_count"]) == (32, 1)
    ElementTree.parse(tmp_path / "chart.svg")


def test_tls_is_measured_beside_nginx_with_the_same_certificate() -> None:
    require("wrk", "nginx")
    done = bench("--quick", "--only", "tls-blob-1k", "--only", "tls-blob-64k")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line.split()[1] for line in done.stdout.splitlines()] == [
        "target=moorage-tls",
        "target=nginx-tls",
    ] * 2


@pytest.mark.parametrize(
    ("option", "value", "known"), [("--only", "x", "blob-1k"), ("--target", "x", "moorage")]
)
def test_an_unknown_name_is_refused_with_those_that_there_are(
    option: str, value: str, known: str
) -> None:
    require("wrk", "nginx")
    done = bench("--quick", option, value)
    assert done.returncode == 2
    assert known in done.stderr
    assert done.stdout == ""


def test_a_missing_program_is_named_and_without_wrk_nothing_is_measured(tmp_path: Path) -> None:
    for name in ("bash", "readlink", "dirname", "taskset", "nice"):
        found = shutil.which(name)
        assert found is not None
        (tmp_path / name).symlink_to(found)
    done = bench("--quick", PATH=str(tmp_path))
    assert done.returncode == 2
    assert "left out: wrk (not installed: apt install wrk)" in done.stderr
    assert "cannot measure without wrk and nginx" in done.stderr
