"""skopeo, podman and buildah: the clients built on containers/image.

They know mirrors by registries.conf, never send `ns`, and have no fallback once a mirror has
served the tag.
"""

import json
from typing import ClassVar

from tests.fakes.clients import (
    SHORT,
    Client,
    Keeps,
    Sandbox,
    hash_tree,
    hub_name,
    start_fresh,
)
from tests.fakes.images import Image
from tests.fakes.readme import recipe


class _ContainersClient(Client):
    """Writes the configuration files that all three read; registries.conf is the README's."""

    # Whether the mirror's location has a path, which chooses the upstream, as the README advises.
    has_prefix: ClassVar[bool] = False

    def __init__(self, sandbox: Sandbox, mirror_port: int) -> None:
        super().__init__(sandbox, mirror_port)
        self.policy = self._write(
            "policy.json", json.dumps({"default": [{"type": "insecureAcceptAnything"}]})
        )
        text = recipe("toml", "[[registry.mirror]]", self.mirror)
        if not self.has_prefix:
            text = text.replace(f"{self.mirror}/docker.io", self.mirror)
        self.registries = self._write("registries.conf", text)
        # buildah fails where the file that this names is missing.
        sandbox.environment["REGISTRY_AUTH_FILE"] = self._write("auth.json", "{}")

    def _write(self, name: str, text: str) -> str:
        file = self.work / name
        file.write_text(text)
        return str(file)


class SkopeoByAddress(_ContainersClient):
    """`skopeo copy --all` from the mirror's own address: everything of an image index."""

    name = "skopeo"
    programs = ("skopeo",)
    keeps = Keeps.EVERYTHING

    def pull(self, image: Image) -> None:
        """Copy into a directory, which keeps manifests and blobs as they are."""
        source = f"docker://{self.mirror}/{image.repository}:{image.tag}"
        self._copy("--all", "--src-tls-verify=false", source)

    def hash_all(self, image: Image) -> set[str]:
        """Hash the directory."""
        return hash_tree(self.work / "out")

    def remove(self, image: Image) -> None:
        """Delete the directory."""
        start_fresh(self.work / "out")

    def _copy(self, *arguments: str) -> None:
        out = start_fresh(self.work / "out")
        options = ["--registries-conf", self.registries, "--policy", self.policy]
        self.sandbox.run("skopeo", *options, "copy", *arguments, f"dir:{out}")


class SkopeoByMirror(SkopeoByAddress):
    """`skopeo copy` of a Docker Hub name, through registries.conf: one platform."""

    name = "skopeo-mirror"
    keeps = Keeps.BLOBS

    def pull(self, image: Image) -> None:
        """Copy what this machine would run."""
        self._copy(f"docker://{hub_name(image)}")

    @classmethod
    def expected(cls, image: Image) -> set[str]:
        """Leave out the image index: skopeo does not keep the one it chose from."""
        of_host = Image(image.repository, image.tag, image.host_manifest)
        return super().expected(of_host)


class Podman(_ContainersClient):
    """`podman pull` through registries.conf."""

    name = "podman"
    programs = ("podman",)
    keeps = Keeps.ARCHIVES
    push_options: ClassVar[tuple[str, ...]] = ()

    def __init__(self, sandbox: Sandbox, mirror_port: int) -> None:
        super().__init__(sandbox, mirror_port)
        self.driver = "overlay" if sandbox.can_overlay() else "vfs"
        self.root, self.run_root = self.work / "root", SHORT / "run"
        storage = (
            f'[storage]\ndriver = "{self.driver}"\n'
            f'graphroot = "{self.root}"\nrunroot = "{self.run_root}"\n'
        )
        sandbox.environment |= {
            "CONTAINERS_REGISTRIES_CONF": self.registries,
            "CONTAINERS_STORAGE_CONF": self._write("storage.conf", storage),
            "CONTAINERS_CONF": self._write("containers.conf", ""),
        }

    def pull(self, image: Image) -> None:
        """Pull into a store of its own."""
        self._run("pull", "--signature-policy", self.policy, hub_name(image))

    def hash_all(self, image: Image) -> set[str]:
        """Hash manifests and configuration in the store, and the layers it gives out.

        The store holds layers unpacked; written out, they are the archives that diff_ids name.
        """
        out = start_fresh(self.work / "out")
        options = ["--signature-policy", self.policy, *self.push_options]
        self._run("push", *options, hub_name(image), f"dir:{out}")
        return hash_tree(out) | hash_tree(self.root / f"{self.driver}-images")

    def remove(self, image: Image) -> None:
        """Remove the image with its layers."""
        self._run("rmi", "--force", hub_name(image))

    def _run(self, *arguments: str) -> None:
        self.sandbox.run(self.programs[0], *self._global_options(), *arguments)

    def _global_options(self) -> list[str]:
        places = ["--root", str(self.root), "--runroot", str(self.run_root)]
        return [*places, "--storage-driver", self.driver]


class PodmanByPrefix(Podman):
    """`podman pull` through a mirror location with a path, which chooses the upstream."""

    name = "podman-prefix"
    has_prefix = True


class Buildah(Podman):
    """`buildah pull` through registries.conf."""

    name = "buildah"
    programs = ("buildah",)
    push_options = ("--disable-compression",)

    def _global_options(self) -> list[str]:
        return [*super()._global_options(), "--registries-conf", self.registries]
