"""The further examples of distribution's documentation, and of its sources, start as they are."""

from pathlib import Path

import pytest

from server.config import ConfigError, load
from server.settings import Listener

# As people run it while they develop, 2.8 and 3.1.
DEVELOPMENT = """
version: 0.1
log: {level: debug, fields: {service: registry, environment: development}}
storage:
    delete: {enabled: true}
    cache: {blobdescriptor: inmemory}
    filesystem: {rootdirectory: /var/lib/registry}
    maintenance: {uploadpurging: {enabled: false}}
    tag: {concurrencylimit: 8}
http:
    addr: :5000
    debug: {addr: ":5001", prometheus: {enabled: true, path: /metrics}}
    headers: {X-Content-Type-Options: [nosniff]}
health: {storagedriver: {enabled: true, interval: 10s, threshold: 3}}
"""
SIMPLE = """
version: 0.1
log: {level: debug}
storage: {filesystem: {rootdirectory: /var/lib/registry}}
http: {addr: "localhost:5000", secret: asecret, debug: {addr: "localhost:5001"}}
"""
# "Run the registry as a pull through cache", with something in the places of what is to be put in.
MIRROR = """
version: 0.1
storage: {filesystem: {rootdirectory: /var/lib/registry}, delete: {enabled: true}}
http: {addr: ":5000"}
proxy: {remoteurl: https://registry-1.docker.io, username: name, password: secret, ttl: 168h}
"""


@pytest.mark.parametrize("text", [DEVELOPMENT, SIMPLE, MIRROR], ids=["dev", "simple", "mirror"])
def test_an_example_starts_as_it_is(tmp_path: Path, text: str) -> None:
    file = tmp_path / "config.yml"
    file.write_text(text)
    settings = load(file, {})
    assert settings.http.listeners[0].port == 5000
    assert settings.engine.data_directory == Path("/var/lib/registry")
    assert settings.engine.upstreams[0].is_docker_hub


def test_the_recipe_for_a_mirror_keeps_its_time_to_live(tmp_path: Path) -> None:
    file = tmp_path / "config.yml"
    file.write_text(MIRROR.replace("168h", "24h"))
    settings = load(file, {})
    assert settings.engine.upstreams[0].ttl_s == 24 * 3600
    assert settings.http.listeners == (Listener("", 5000),)


def test_a_place_that_was_not_filled_in_is_named(tmp_path: Path) -> None:
    """`[username]` is a list of YAML's; distribution refuses it, too."""
    file = tmp_path / "config.yml"
    file.write_text(MIRROR.replace("name,", "[username],"))
    with pytest.raises(ConfigError, match=r"proxy\.username: found a list"):
        load(file, {})
