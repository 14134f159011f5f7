"""An API client for tests, with methods for what a person does with kubectl."""

import copy
import os
import time
from collections.abc import Callable
from typing import Any, Final

import requests

Object = dict[str, Any]

_PLURALS: Final = {
    "NetworkPolicy": "networkpolicies",
    "Ingress": "ingresses",
    "ValidatingAdmissionPolicy": "validatingadmissionpolicies",
}
# First often, as most comes soon; then seldom, as those who are waited for need the processors.
_FIRST_POLL_S: Final = 0.02
_LAST_POLL_S: Final = 0.3
_SLOWER: Final = 1.2
# Only what never happens takes so long: a loaded machine must not make a test fail.
_PATIENCE_S: Final = float(os.environ.get("CLUSTER_PATIENCE_S", "180"))


class Refused(Exception):
    """The API server does not take it: the message is its own."""


class Api:
    """One user's view of the API server."""

    def __init__(self, session: requests.Session, url: str) -> None:
        self.session, self.url = session, url

    def twin(self) -> "Api":
        """Return the same view for another thread."""
        session = requests.Session()
        session.trust_env = False
        session.cert, session.verify = self.session.cert, self.session.verify
        session.headers.update(self.session.headers)
        return Api(session, self.url)

    def apply(self, manifest: Object, namespace: str = "", manager: str = "test") -> Object:
        """Apply it with force, as `kubectl apply --server-side --force-conflicts` would."""
        namespace = namespace or manifest["metadata"].get("namespace", "")
        path = self.path(
            manifest["apiVersion"],
            plural(manifest["kind"]),
            namespace,
            manifest["metadata"]["name"],
        )
        return self._call(
            "PATCH",
            path,
            json=manifest,
            params={"fieldManager": manager, "force": "true"},
            headers={"Content-Type": "application/apply-patch+yaml"},
        )

    def create(self, path: str, manifest: Object) -> Object:
        """Make an object in a collection, or ask a subresource for something."""
        return self._call("POST", path, json=manifest)

    def patch(self, path: str, change: Object, manager: str = "somebody") -> Object:
        """Change an object as `kubectl edit` would."""
        return self._call(
            "PATCH",
            path,
            json=change,
            params={"fieldManager": manager},
            headers={"Content-Type": "application/merge-patch+json"},
        )

    def get(self, version: str, plural: str, namespace: str, name: str = "") -> Object:
        """Read an object, or a list."""
        return self._call("GET", self.path(version, plural, namespace, name))

    def list(self, version: str, plural: str, namespace: str, selector: str = "") -> list[Object]:
        """List the objects of a kind that a label selector matches."""
        path = self.path(version, plural, namespace)
        items: list[Object] = self._call("GET", path, params={"labelSelector": selector})["items"]
        return items

    def exists(self, version: str, plural: str, namespace: str, name: str) -> bool:
        """Return whether an object is there."""
        return self.session.get(self.url + self.path(version, plural, namespace, name)).ok

    def knows(self, version: str, plural: str) -> bool:
        """Return whether the API server knows a kind."""
        answer = self.session.get(f"{self.url}/apis/{version}")
        return answer.ok and any(
            resource["name"] == plural for resource in answer.json()["resources"]
        )

    def delete(self, version: str, plural: str, namespace: str, name: str) -> None:
        """Delete an object; raises Refused if it does not exist."""
        self._call("DELETE", self.path(version, plural, namespace, name))

    def delete_all(self, version: str, plural: str, namespace: str) -> None:
        """Delete all objects of a kind."""
        self._call("DELETE", self.path(version, plural, namespace))

    def path(self, version: str, plural: str, namespace: str = "", name: str = "") -> str:
        """Return the path of an object or a collection."""
        root = f"/apis/{version}" if "/" in version else f"/api/{version}"
        inside = f"/namespaces/{namespace}" if namespace else ""
        return f"{root}{inside}/{plural}" + (f"/{name}" if name else "")

    def wait(self, true: Callable[[], Any], within_s: float = _PATIENCE_S) -> float:
        """Wait until something is true; return how many seconds it took."""
        began_at, poll_s = time.monotonic(), _FIRST_POLL_S
        while not true():
            if time.monotonic() - began_at > within_s:
                raise TimeoutError(f"not within {within_s} s")
            time.sleep(poll_s)
            poll_s = min(_LAST_POLL_S, poll_s * _SLOWER)
        return time.monotonic() - began_at

    def _call(self, method: str, path: str, **options: Any) -> Object:
        answer = self.session.request(method, self.url + path, timeout=30, **options)
        if answer.status_code >= 400:
            raise Refused(answer.json().get("message", answer.text))
        body: Object = answer.json()
        return body


def plural(kind: str) -> str:
    """Return the name of a kind in paths."""
    return _PLURALS.get(kind, kind.lower() + "s")


def changed(manifest: Object, **spec: Any) -> Object:
    """Return a manifest with other values in its spec."""
    copied = copy.deepcopy(manifest)
    copied["spec"] |= spec
    return copied
