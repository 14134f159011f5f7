"""A watch of the metadata of Secrets, if the operator may: changes are read within a second.

The events do not contain the content of Secrets. Only the resource version is kept.
"""

from collections.abc import Callable

from orderservice_operator.cluster.client import Client
from orderservice_operator.cluster.following import follow_for_ever
from orderservice_operator.resource.key import Key


class SecretWatch:
    """Watches Secrets until cancelled, in one namespace or (None) in all.

    `saw` is called with name and version of each Secret that exists, changed or is gone. All
    Secrets are also read in turn, so a refused watch only costs time.
    """

    def __init__(
        self, client: Client, on_version: Callable[[Key, str], None], namespace: str | None = None
    ) -> None:
        self._client, self._on_version = client, on_version
        self._path = f"/api/v1/namespaces/{namespace}/secrets" if namespace else "/api/v1/secrets"
        self._version = ""

    async def run(self) -> None:
        """Follow changes of Secrets until the task is cancelled."""
        await follow_for_ever("Secret", self._follow, self._begin_anew)

    def _begin_anew(self) -> None:
        self._version = ""

    async def _follow(self) -> None:
        events = self._client.watch(self._path, self._version, metadata_only=True)
        async for event in events:
            metadata = event["object"]["metadata"]
            self._version = metadata["resourceVersion"]
            if event["type"] != "BOOKMARK":
                self._on_version(Key(metadata["namespace"], metadata["name"]), self._version)
