"""Configurations that people run the official image with start as they are."""

from pathlib import Path

import pytest

from engine.settings import UpstreamSettings
from server.config import load
from server.settings import HtpasswdSettings, Listener, ServerSettings

DEBIANS_FILE = Path("/etc/docker/registry/config.yml")

# The image's own file, 2.8 and 3.1, without its commented parts.
IMAGE = """
version: 0.1
log:
  fields:
    service: registry
storage:
  cache:
    blobdescriptor: inmemory
  filesystem:
    rootdirectory: /var/lib/registry
  tag:
    concurrencylimit: 8
http:
  addr: :5000
  headers:
    X-Content-Type-Options: [nosniff]
health:
  storagedriver:
    enabled: true
    interval: 10s
    threshold: 3
"""

CACHE = """
version: 0.1
log:
  level: debug
  fields: {service: registry, environment: development}
storage:
    cache: {blobdescriptor: redis}
    filesystem: {rootdirectory: /var/lib/registry-cache}
    maintenance: {uploadpurging: {enabled: false}}
    tag: {concurrencylimit: 8}
http:
    addr: :5000
    secret: asecret
    debug: {addr: "localhost:5001"}
    headers: {X-Content-Type-Options: [nosniff]}
redis: REDIS
notifications:
    events: {includereferences: true}
    endpoints:
        - name: local
          url: http://localhost:5003/callback
          headers: {Authorization: [Bearer x]}
          timeout: 1s
          threshold: 10
          backoff: 1s
          disabled: true
          ignoredmediatypes: [application/octet-stream]
          ignore: {mediatypes: [application/octet-stream], actions: [pull]}
proxy:
  remoteurl: https://registry-1.docker.io
  username: username
  password: password
health: {storagedriver: {enabled: true, interval: 10s, threshold: 3}}
"""
REDIS_28 = (
    "{addr: 'localhost:6379', pool: {maxidle: 16, maxactive: 64, idletimeout: 300s}, "
    "dialtimeout: 10ms, readtimeout: 10ms, writetimeout: 10ms}"
)
REDIS_31 = (
    "{addrs: ['localhost:6379'], maxidleconns: 16, poolsize: 64, connmaxidletime: 300s, "
    "dialtimeout: 10ms, tls: {certificate: /c, key: /k, rootcas: [/ca]}}"
)

# Every key of the reference that a file may hold beside the filesystem driver.
REFERENCE = """
version: 0.1
log:
  accesslog: {disabled: true}
  level: debug
  formatter: text
  reportcaller: true
  fields: {service: registry, environment: staging}
  hooks:
    - type: mail
      disabled: true
      levels: [panic]
      options:
        smtp: {addr: "mail.example.com:25", username: u, password: p, insecure: true}
        from: sender@example.com
        to: [errors@example.com]
loglevel: debug
storage:
  filesystem: {rootdirectory: /var/lib/registry, maxthreads: 100}
  tag: {concurrencylimit: 8}
  delete: {enabled: false}
  redirect: {disable: false}
  cache: {blobdescriptor: redis, blobdescriptorsize: 10000, layerinfo: inmemory}
  maintenance:
    uploadpurging: {enabled: true, age: 168h, interval: 24h, dryrun: false}
    readonly: {enabled: false}
auth: none
middleware:
  registry: [{name: ARegistryMiddleware, options: {foo: bar}}]
  repository: [{name: ARepositoryMiddleware, disabled: true, options: {foo: {bar: [1]}}}]
  storage: [{name: redirect, options: {baseurl: "https://example.com/"}}]
reporting:
  bugsnag: {apikey: k, releasestage: s, endpoint: e}
  newrelic: {licensekey: k, name: n, verbose: true}
catalog: {maxentries: 1000}
tags: {maxtags: 1000}
http:
  addr: localhost:5000
  net: tcp
  prefix: /my/nested/registry/
  host: https://myregistryaddress.org:5000
  secret: asecret
  relativeurls: false
  draintimeout: 60s
  tls:
    certificate: ""
    key: ""
    clientcas: [/path/to/ca.pem]
    clientauth: require-and-verify-client-cert
    minimumtls: tls1.2
    ciphersuites: [TLS_AES_128_GCM_SHA256]
    letsencrypt: {cachefile: "", email: e, hosts: [h], directoryurl: u}
  debug: {addr: "localhost:5001", prometheus: {enabled: true, path: /metrics}}
  headers: {X-Content-Type-Options: [nosniff]}
  http2: {disabled: false}
  h2c: {enabled: false}
health:
  storagedriver: {enabled: true, interval: 10s, threshold: 3}
  file: [{file: /path/to/checked/file, interval: 10s, threshold: 1}]
  http:
    - uri: http://server.to.check
      headers: {Authorization: [Basic x]}
      statuscode: 200
      timeout: 3s
      interval: 10s
      threshold: 3
  tcp: [{addr: "redis:6379", timeout: 3s, interval: 10s, threshold: 3}]
proxy:
  remoteurl: https://registry-1.docker.io
  exec: {command: docker-credential-helper, lifetime: 1h}
  ttl: 168h
  cachewritetimeout: 5m
compatibility: {schema1: {signingkeyfile: /k, enabled: true}}
validation:
  enabled: true
  disabled: false
  manifests:
    urls: {allow: [a], deny: [b]}
    indexes: {platforms: List, platformlist: [{architecture: amd64, os: linux}]}
policy: {repository: {classes: [image]}}
"""


def load_text(tmp_path: Path, text: str) -> ServerSettings:
    file = tmp_path / "config.yml"
    file.write_text(text)
    return load(file, {})


def unused_keys(settings: ServerSettings) -> list[str]:
    return [warning.split(": ")[1] for warning in settings.warnings if "known to" in warning]


def test_the_images_file_makes_a_mirror_of_docker_hub(tmp_path: Path) -> None:
    settings = load_text(tmp_path, IMAGE)
    assert settings.http.listeners == (Listener("", 5000),)
    assert settings.http.headers == (("X-Content-Type-Options", "nosniff"),)
    assert settings.engine.data_directory == Path("/var/lib/registry")
    assert settings.engine.upstreams[0].is_docker_hub
    assert unused_keys(settings) == [
        "storage.cache.blobdescriptor",
        "storage.tag.concurrencylimit",
        "health",
    ]


@pytest.mark.parametrize("redis", [REDIS_28, REDIS_31], ids=["2.8", "3.1"])
def test_the_example_of_a_cache_starts(tmp_path: Path, redis: str) -> None:
    settings = load_text(tmp_path, CACHE.replace("REDIS", redis))
    assert settings.log.level == "debug"
    assert settings.http.debug_listeners == (Listener("localhost", 5001),)
    assert settings.engine.upstreams == (
        UpstreamSettings(
            "docker.io",
            "https://registry-1.docker.io",
            namespaces=("docker.io", "index.docker.io", "registry-1.docker.io"),
            username="username",
            password="password",
        ),
    )
    assert any("EVERYONE who can connect to :5000" in warning for warning in settings.warnings)


def test_every_key_of_the_reference_is_known_and_the_unused_ones_are_named(
    tmp_path: Path,
) -> None:
    settings = load_text(tmp_path, REFERENCE)
    assert settings.http.prefix == "/my/nested/registry/"
    assert (settings.catalog_max, settings.tags_max) == (1000, 1000)
    assert set(unused_keys(settings)) == {
        *("log.reportcaller", "log.hooks"),
        *("storage.filesystem.maxthreads", "storage.tag.concurrencylimit"),
        *("storage.delete.enabled", "storage.redirect.disable", "storage.cache.blobdescriptor"),
        *("storage.cache.blobdescriptorsize", "storage.cache.layerinfo"),
        *("storage.maintenance.uploadpurging", "storage.maintenance.readonly"),
        *("middleware", "reporting", "http.host", "http.secret", "http.relativeurls"),
        *("http.tls.letsencrypt.email", "http.tls.letsencrypt.hosts"),
        *("http.tls.letsencrypt.directoryurl", "http.http2", "http.h2c", "health"),
        *("proxy.cachewritetimeout", "compatibility", "validation", "policy"),
    }


def test_the_example_with_passwords_starts(tmp_path: Path) -> None:
    path = tmp_path / "registry"
    auth = f"auth: {{htpasswd: {{realm: basic-realm, path: {path}}}}}\n"
    settings = load_text(tmp_path, IMAGE + auth)
    assert settings.auth == HtpasswdSettings("basic-realm", path)
    assert not path.exists()


def test_the_images_variables_configure_passwords_without_a_file() -> None:
    settings = load(
        None,
        {
            "REGISTRY_AUTH": "htpasswd",
            "REGISTRY_AUTH_HTPASSWD_REALM": "Registry Realm",
            "REGISTRY_AUTH_HTPASSWD_PATH": "/auth/htpasswd",
        },
    )
    assert settings.auth == HtpasswdSettings("Registry Realm", Path("/auth/htpasswd"))
    assert settings.warnings == ()


def test_the_images_variables_configure_a_cache_without_a_file() -> None:
    settings = load(
        None,
        {
            "REGISTRY_HTTP_ADDR": "0.0.0.0:5000",
            "REGISTRY_HTTP_SECRET": "asecret",
            "REGISTRY_PROXY_REMOTEURL": "https://registry-1.docker.io",
            "REGISTRY_PROXY_TTL": "24h",
            "REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY": "/var/lib/registry",
            "REGISTRY_STORAGE_DELETE_ENABLED": "true",
            "REGISTRY_LOG_ACCESSLOG_DISABLED": "true",
        },
    )
    assert settings.http.listeners == (Listener("0.0.0.0", 5000),)
    assert settings.engine.upstreams[0].ttl_s == 24 * 3600
    assert settings.engine.data_directory == Path("/var/lib/registry")
    assert not settings.log.is_access_log_enabled


@pytest.mark.skipif(not DEBIANS_FILE.exists(), reason="Debian's docker-registry is not installed")
def test_debians_file_asks_for_passwords_of_nobody_yet() -> None:
    settings = load(DEBIANS_FILE, {})
    # It names a directory: distribution starts, and lets nobody in.
    assert settings.auth == HtpasswdSettings("basic-realm", DEBIANS_FILE.parent)
    assert any("auth.htpasswd.path: a directory: NOBODY" in line for line in settings.warnings)
