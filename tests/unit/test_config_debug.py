"""The debug port's token in the configuration."""

from pathlib import Path

import pytest

from server.config import ConfigError, load
from server.config_render import render
from server.settings import ServerSettings

TOKEN = "0123456789abcdef"


def load_debug(tmp_path: Path, debug: str) -> ServerSettings:
    file = tmp_path / "config.yml"
    file.write_text(f"version: 0.1\nhttp: {{debug: {debug}}}\nproxy: {{remoteurl: 'http://x'}}\n")
    return load(file, {})


def refuse(tmp_path: Path, debug: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_debug(tmp_path, debug)
    (problem,) = caught.value.problems
    assert "hunter2" not in str(problem)
    return f"{problem.key_path}: {problem.found}"


def test_without_one_there_is_none(tmp_path: Path) -> None:
    assert load_debug(tmp_path, "{addr: ':1'}").http.debug_token is None


def test_it_comes_from_its_key_or_from_a_file_without_the_last_newline(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    assert load_debug(tmp_path, f"{{token: '{TOKEN}'}}").http.debug_token == TOKEN
    assert load_debug(tmp_path, f"{{tokenfile: '{file}'}}").http.debug_token == TOKEN


def test_it_is_not_shown_and_what_is_shown_is_a_configuration(tmp_path: Path) -> None:
    settings = load_debug(tmp_path, f"{{token: '{TOKEN}'}}")
    assert TOKEN not in repr(settings)
    shown = render(settings)
    assert TOKEN not in str(shown)
    masked = load_debug(tmp_path, "{token: '****************'}")
    assert render(masked) == shown


@pytest.mark.parametrize("token", ["hunter2", "hunter2 hunter2 hunter2", "hunter2-hunter2-ü"])
def test_one_that_is_easily_guessed_or_is_no_header_is_refused(tmp_path: Path, token: str) -> None:
    assert refuse(tmp_path, f"{{token: '{token}'}}") == (
        f"http.debug.token: {len(token)} characters"
    )


def test_a_file_that_is_empty_or_absent_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "token"
    assert refuse(tmp_path, f"{{tokenfile: '{file}'}}").endswith("No such file or directory")
    file.write_text("\n")
    assert refuse(tmp_path, f"{{tokenfile: '{file}'}}").endswith("which is empty")
    file.write_text("hunter2\n")
    assert refuse(tmp_path, f"{{tokenfile: '{file}'}}") == "http.debug.tokenfile: 7 characters"
    both = f"{{token: '{TOKEN}', tokenfile: '{file}'}}"
    assert refuse(tmp_path, both) == "http.debug.tokenfile: token as well"
