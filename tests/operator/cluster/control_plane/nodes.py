"""Says of pods what a kubelet would, so that Deployments become ready and Jobs complete.

The pods are real objects made by the real controllers; only their containers do not exist.
"""

import threading
from datetime import UTC, datetime
from typing import Final

from control_plane.api import Api, Object, Refused

_POLL_S: Final = 0.1


class Nodes:
    """Looks at the pods of a namespace again and again, until it is stopped.

    `failing` names components whose pods never become ready, or whose Job fails; `held` those that
    stay as they are.
    """

    def __init__(self, api: Api, namespace: str) -> None:
        self._api, self._namespace = api, namespace
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="nodes")
        self.failing: set[str] = set()
        self.held: set[str] = set()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._ending.set()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._ending.wait(_POLL_S):
            for pod in self._api.list("v1", "pods", self._namespace):
                self._live(pod)

    def _live(self, pod: Object) -> None:
        component = pod["metadata"]["labels"].get("app.kubernetes.io/component", "")
        status = self._status(component)
        if component in self.held or pod["status"].get("phase") == status["phase"]:
            return
        path = self._api.path("v1", "pods", self._namespace, pod["metadata"]["name"]) + "/status"
        try:
            self._api.patch(path, {"status": status})
        except Refused:
            return  # it is gone meanwhile

    def _status(self, component: str) -> Object:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        fails = component in self.failing
        if component == "migrate":
            return {"phase": "Failed" if fails else "Succeeded"}
        ready = {"status": "False" if fails else "True", "lastTransitionTime": now}
        conditions = [{"type": kind, **ready} for kind in ("Ready", "ContainersReady")]
        return {"phase": "Running", "conditions": conditions}
