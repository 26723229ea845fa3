"""What is deployed by: each file against the rules of whoever reads it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from server.config import load
from server.settings import Listener
from tests.fakes.readme import ROOT
from tests.system.conftest import skip_client

pytestmark = pytest.mark.system

DEPLOY = ROOT / "tools" / "deploy"
Document = dict[str, object]


def run(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program of the virtual environment."""
    program = shutil.which(name, path=str(Path(sys.executable).parent))
    if program is None:
        skip_client(name, "not installed")
    return subprocess.run(
        [str(program), *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def documents(name: str) -> list[dict[str, object]]:
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


def find(kind: str, name: str) -> Document:
    """The one resource of a kind and a name."""
    (found,) = [
        each
        for each in documents("kubernetes.yaml")
        if each["kind"] == kind and dig(each, "metadata", "name") == name
    ]
    return found


def dig(value: object, *path: str | int) -> object:
    """Go down mappings and lists."""
    for step in path:
        if isinstance(step, int):
            assert isinstance(value, list)
            value = value[step]
        else:
            assert isinstance(value, dict)
            value = value[step]
    return value


def test_the_containerfile_is_sound() -> None:
    done = run("hadolint", str(DEPLOY / "Containerfile"))
    assert (done.returncode, done.stdout) == (0, "")


def test_the_base_image_is_of_a_fixed_version() -> None:
    (line,) = [
        line
        for line in (DEPLOY / "Containerfile").read_text().splitlines()
        if line.startswith("ARG PYTHON_IMAGE=")
    ]
    assert line.count(".") >= 3, "not to the patch level"


def test_the_compose_file_is_one_by_the_specification() -> None:
    done = run(
        "check-jsonschema", "--builtin-schema=vendor.compose-spec", str(DEPLOY / "compose.yaml")
    )
    assert done.returncode == 0, done.stdout


def test_the_compose_files_variables_configure_the_mirror() -> None:
    environ = dig(documents("compose.yaml")[0], "services", "moorage", "environment")
    assert isinstance(environ, dict)
    settings = load(DEPLOY / "config.yml", environ)
    assert settings.warnings == ()
    assert [each.namespace for each in settings.engine.upstreams] == [
        "docker.io",
        "ghcr.io",
        "quay.io",
    ]


def test_the_images_own_configuration_has_the_official_places() -> None:
    settings = load(DEPLOY / "config.yml", {})
    assert settings.http.listeners == (Listener("", 5000),)
    assert settings.engine.data_directory == Path("/var/lib/registry")
    assert settings.warnings == ()


def test_kubernetes_takes_every_resource() -> None:
    done = run("kubernetes-validate", "--strict", str(DEPLOY / "kubernetes.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert (done.stdout + done.stderr).count("passed for resource") == len(
        documents("kubernetes.yaml")
    )


def test_what_the_config_map_says_is_a_configuration(tmp_path: Path) -> None:
    file = tmp_path / "config.yml"
    file.write_text(str(dig(find("ConfigMap", "moorage"), "data", "config.yml")))
    settings = load(file, {})
    container = dig(_pod(), "containers", 0)
    ports = {dig(port, "name"): dig(port, "containerPort") for port in _list(container, "ports")}
    assert settings.http.listeners == (Listener("", ports["registry"]),)  # type: ignore[arg-type]  # a number
    assert settings.http.debug_listeners == (Listener("", ports["debug"]),)  # type: ignore[arg-type]  # a number
    grace_s = dig(_pod(), "terminationGracePeriodSeconds")
    stop_s = dig(container, "lifecycle", "preStop", "exec", "command", 1)
    assert isinstance(grace_s, int)
    assert settings.http.draintimeout_s + int(str(stop_s)) < grace_s
    mounts = {dig(mount, "mountPath") for mount in _list(container, "volumeMounts")}
    assert str(settings.engine.data_directory) in mounts


def test_the_selectors_find_the_pods() -> None:
    labels = dig(find("StatefulSet", "moorage"), "spec", "template", "metadata", "labels")
    assert dig(find("StatefulSet", "moorage"), "spec", "selector", "matchLabels") == labels
    assert dig(find("PodDisruptionBudget", "moorage"), "spec", "selector", "matchLabels") == labels
    for service in ("moorage", "moorage-debug"):
        assert dig(find("Service", service), "spec", "selector") == labels
    governing = dig(find("StatefulSet", "moorage"), "spec", "serviceName")
    assert dig(find("Service", str(governing)), "spec", "clusterIP") == "None"


def test_the_pod_may_do_next_to_nothing() -> None:
    """The rules of the Pod Security Standard `restricted`."""
    pod, container = _pod(), dig(_pod(), "containers", 0, "securityContext")
    assert dig(pod, "securityContext", "runAsNonRoot") is True
    assert dig(pod, "securityContext", "seccompProfile", "type") == "RuntimeDefault"
    assert dig(container, "allowPrivilegeEscalation") is False
    assert dig(container, "readOnlyRootFilesystem") is True
    assert dig(container, "capabilities", "drop") == ["ALL"]


def test_the_service_monitor_names_what_is_there() -> None:
    """By its structure: the operator's own schema is not at hand."""
    (monitor,) = documents("servicemonitor.yaml")
    assert (monitor["apiVersion"], monitor["kind"]) == (
        "monitoring.coreos.com/v1",
        "ServiceMonitor",
    )
    selected = dig(monitor, "spec", "selector", "matchLabels")
    assert selected == dig(find("Service", "moorage-debug"), "metadata", "labels")
    (endpoint,) = _list(dig(monitor, "spec"), "endpoints")
    (port,) = _list(dig(find("Service", "moorage-debug"), "spec"), "ports")
    assert dig(endpoint, "port") == dig(port, "name")
    assert set(dig(monitor, "spec")) == {"selector", "endpoints"}  # type: ignore[call-overload]  # a mapping
    text = str(dig(find("ConfigMap", "moorage"), "data", "config.yml"))
    prometheus = dig(yaml.safe_load(text), "http", "debug", "prometheus")
    assert prometheus == {"enabled": True}  # at its usual path
    assert dig(endpoint, "path") == "/metrics"


def _pod() -> object:
    return dig(find("StatefulSet", "moorage"), "spec", "template", "spec")


def _list(value: object, key: str) -> list[object]:
    found = dig(value, key)
    assert isinstance(found, list)
    return found
