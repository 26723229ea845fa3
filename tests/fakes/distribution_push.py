"""Pushes images into a registry through its API.

Source: OCI distribution-spec, "Pushing a blob monolithically: POST then PUT", "Pushing manifests".
"""

import http.client
from collections.abc import Callable
from urllib.parse import urlsplit

from tests.fakes.images import Blob, Image

TokenFor = Callable[[str], str]


class PushFailed(Exception):
    """The registry did not take something."""


class Pusher:
    """Pushes to the registry at `address`; `token_for` gives a bearer token by repository."""

    def __init__(self, address: str, token_for: TokenFor | None = None) -> None:
        self._address = address
        self._token_for = token_for

    def push(self, image: Image) -> None:
        """Push everything that `image` names, then its tag."""
        for manifest in image.manifests():
            for blob in manifest.blobs:
                self._push_blob(image.repository, blob)
            reference = image.tag if manifest is image.top else manifest.blob.digest
            path = f"/v2/{image.repository}/manifests/{reference}"
            self._call("PUT", path, image.repository, manifest.blob.data, manifest.media_type)

    def _push_blob(self, repository: str, blob: Blob) -> None:
        location = self._call("POST", f"/v2/{repository}/blobs/uploads/", repository)
        upload = urlsplit(location)
        joint = "&" if upload.query else "?"
        path = f"{upload.path}?{upload.query}{joint}digest={blob.digest}".replace("??", "?")
        self._call("PUT", path, repository, blob.data, "application/octet-stream")

    def _call(
        self, method: str, path: str, repository: str, body: bytes = b"", media_type: str = ""
    ) -> str:
        """Make one request; returns the `Location` it is answered with."""
        headers = {"Content-Type": media_type} if media_type else {}
        if self._token_for is not None:
            headers["Authorization"] = f"Bearer {self._token_for(repository)}"
        connection = http.client.HTTPConnection(self._address, timeout=60)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            text = response.read()
        finally:
            connection.close()
        if response.status not in (201, 202):
            raise PushFailed(f"{method} {path}: {response.status} {text!r}")
        return response.headers.get("Location", "")
