"""Settings of upstreams that no test contacts."""

from engine.settings import UpstreamSettings

HUB = UpstreamSettings(
    namespace="docker.io",
    url="https://registry-1.docker.io",
    namespaces=("docker.io", "index.docker.io", "registry-1.docker.io"),
)
GHCR = UpstreamSettings(namespace="ghcr.io", url="https://ghcr.io", namespaces=("ghcr.io",))
LOCAL = UpstreamSettings(
    namespace="localhost:5001", url="http://localhost:5001", namespaces=("localhost:5001",)
)
