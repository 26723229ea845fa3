"""Real clients that log in to the mirror, each in the way that it has."""

from tests.fakes.accounts import basic
from tests.fakes.clients_containers import Podman, SkopeoByAddress
from tests.fakes.clients_daemons import Containerd
from tests.fakes.images import Image


class SkopeoAsUser(SkopeoByAddress):
    """skopeo with credentials for the mirror on its command line."""

    def pull_as(self, image: Image, credentials: str) -> None:
        """Copy everything of an image; `credentials` are `USER:PASSWORD`."""
        source = f"docker://{self.mirror}/{image.repository}:{image.tag}"
        self._copy("--all", "--src-tls-verify=false", "--src-creds", credentials, source)


class PodmanAsUser(Podman):
    """podman after `podman login` to the mirror."""

    def log_in(self, user: str, password: str) -> None:
        """Log in; raises `ClientFailed` where the mirror refuses."""
        self._run("login", "--tls-verify=false", "-u", user, "-p", password, self.mirror)


class ContainerdAsUser(Containerd):
    """containerd with a header for the mirror in its hosts.toml."""

    def log_in(self, user: str, password: str) -> None:
        """Write the header, in the place of an earlier one."""
        file = self.work / "hosts.d" / "docker.io" / "hosts.toml"
        header = f'[host."http://{self.mirror}".header]\n'
        text = file.read_text().partition(header)[0]
        file.write_text(f'{text}{header}authorization = ["{basic(user, password)}"]\n')
