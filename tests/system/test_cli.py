"""The `moorage` command as a child process: what it prints, where, and its exit code."""

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from server.config import load

pytestmark = pytest.mark.system

MOORAGE = Path(sys.executable).with_name("moorage")


def run(*arguments: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if "REGISTRY" not in name}
    return subprocess.run(
        [MOORAGE, *arguments],
        env=inherited | environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "config.yml"
    path.write_text(
        "version: 0.1\n"
        "http: {addr: ':5000', secret: hunter1}\n"
        "proxy: {remoteurl: 'https://a.example', username: bob, password: hunter2}\n"
        f"storage: {{filesystem: {{rootdirectory: {tmp_path}/{'long/' * 40}}}}}\n"
    )
    return path


def test_the_version_is_that_of_the_distribution() -> None:
    shown = run("--version")
    assert shown.returncode == 0
    assert shown.stdout == f"moorage, version {importlib.metadata.version('moorage')}\n"


def test_help_names_every_command() -> None:
    shown = run("--help")
    assert shown.returncode == 0
    commands = shown.stdout.partition("Commands:\n")[2].splitlines()
    assert [line.split()[0] for line in commands if line.startswith("  ") and line[2] != " "] == [
        "adopt",
        "check-config",
        "drain",
        "healthcheck",
        "inspect-index",
        "pin",
        "purge",
        "serve",
        "status",
        "top",
        "unpin",
        "verify-digests",
        "warm",
    ]


def test_what_serves_has_nothing_in_memory_that_only_other_commands_need() -> None:
    program = "import sys, tools.cli, server.app; print('rich' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"


def test_check_config_prints_what_would_be_used_with_secrets_masked(file: Path) -> None:
    checked = run("check-config", file)
    assert checked.returncode == 0
    assert "hunter" not in checked.stdout + checked.stderr
    assert "password: '***'" in checked.stdout
    resolved = file.with_name("resolved.yml")
    resolved.write_text(checked.stdout)
    settings = load(resolved, {})
    assert settings.http == load(file, {}).http
    assert settings.engine.upstreams[0].username == "bob"


def test_check_config_prints_a_line_for_each_warning_to_standard_error(file: Path) -> None:
    checked = run("check-config", file)
    lines = checked.stderr.splitlines()
    assert lines[0] == f"warning: {file}: http.secret: known to distribution, but not used here"
    assert lines[1].startswith(f"warning: {file}: http.addr: EVERYONE who can connect to :5000")
    assert len(lines) == 2


def test_check_config_never_wraps_a_value(file: Path) -> None:
    lines = run("check-config", file).stdout.splitlines()
    assert f"    rootdirectory: {file.parent}/{'/'.join(['long'] * 40)}" in lines


def test_check_config_prints_json_when_asked(file: Path) -> None:
    shown = json.loads(run("check-config", "--config", file, "--json").stdout)
    assert shown["config"]["proxy"]["password"] == "***"
    assert len(shown["warnings"]) == 2


def test_check_config_without_a_file_shows_the_defaults() -> None:
    checked = run("check-config")
    assert (checked.returncode, checked.stderr) == (0, "")
    assert "remoteurl: https://registry-1.docker.io" in checked.stdout


def test_the_environment_names_the_file_and_overrides_it(file: Path) -> None:
    checked = run(
        "check-config",
        "--json",
        REGISTRY_CONFIGURATION_PATH=str(file),
        REGISTRY_PROXY_USERNAME="alice",
        REGISTRY_PORT="tcp://10.0.0.1:5000",
    )
    shown = json.loads(checked.stdout)
    assert shown["config"]["proxy"]["username"] == "alice"
    assert shown["warnings"][0] == "REGISTRY_PORT: names no known setting, ignored"


def test_data_is_accepted_after_the_subcommand(file: Path, tmp_path: Path) -> None:
    checked = run("check-config", file, "--json", "--data", tmp_path / "data")
    shown = json.loads(checked.stdout)
    assert shown["config"]["storage"]["filesystem"]["rootdirectory"] == str(tmp_path / "data")


@pytest.mark.parametrize("command", ["check-config", "serve"])
def test_a_wrong_configuration_is_two_and_a_line_for_each_problem(
    command: str, tmp_path: Path
) -> None:
    file = tmp_path / "config.yml"
    file.write_text("version: 0.1\nproxy: {ttl: soon, password: hunter2}\nprxy: {}\n")
    refused = run(command, file)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.splitlines() == [
        f"{file}: prxy: found an unknown key, expected proxy, perhaps",
        f"{file}: proxy.ttl: found 'soon', expected a duration such as 168h, 1h30m or 250ms "
        "(a bare number is nanoseconds), 0 or more",
    ]


def test_problems_are_json_when_asked(tmp_path: Path) -> None:
    refused = run("check-config", tmp_path / "absent.yml", "--json")
    assert refused.returncode == 2
    assert json.loads(refused.stdout) == {
        "errors": [
            {
                "source": str(tmp_path / "absent.yml"),
                "key": "",
                "found": "No such file or directory",
                "expected": "a readable configuration file",
            }
        ]
    }


@pytest.mark.parametrize(
    "arguments",
    [
        ["serve", "a.yml", "--config", "b.yml"],
        ["serve", "--port", "1"],
        ["serve", "--upstream", "registry-1.docker.io"],
        ["serve", "--listen", "5000"],
        ["check-config", "a.yml", "b.yml"],
        ["sail"],
    ],
)
def test_wrong_usage_is_two_without_a_traceback(arguments: list[str]) -> None:
    refused = run(*arguments)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr
    assert "Traceback" not in refused.stderr
