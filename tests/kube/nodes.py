"""Set the status of pods as a kubelet does, so that Deployments become ready and Jobs complete.

The pods are real objects made by the real controllers; only their containers do not exist.
"""

import threading
import time
from datetime import UTC, datetime
from typing import Final

from kube.api import Api, Object, Refused

_POLL_S: Final = 0.2
_CRASHES_AFTER_S: Final = 0.5
_RESTARTS_EVERY_S: Final = 2.0
_STARTED: Final = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
_CRASHED: Final = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}
_ENDED: Final = {"terminated": {"exitCode": 1, "reason": "Error"}}


class Nodes:
    """Looks at the pods of a namespace again and again, until it is stopped.

    Pods become ready at once, and Jobs succeed, but for those whose component or image (of Jobs:
    component only) is named in one of these: `held` stay as they are; `failing` run and never
    become ready, and Jobs fail; `crashing` are ready for a moment, then crash and are restarted
    again and again; `slow` become ready after so many seconds. All may be changed at any time.
    """

    def __init__(self, api: Api, namespace: str) -> None:
        self._api, self._namespace = api, namespace
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="nodes")
        self._seen_at: dict[str, float] = {}
        self.held: set[str] = set()
        self.failing: set[str] = set()
        self.crashing: set[str] = set()
        self.slow: dict[str, float] = {}

    def start(self) -> None:
        """Start the thread of the nodes."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread; waits at most 10 s."""
        self._ending.set()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._ending.wait(_POLL_S):
            for pod in self._api.list("v1", "pods", self._namespace):
                self._live(pod)

    def _live(self, pod: Object) -> None:
        names = _names(pod)
        if names & self.held or pod["status"].get("phase") in {"Succeeded", "Failed"}:
            return
        status = self._status(pod, names)
        if _summary(status) == _summary(pod["status"]):
            return
        path = self._api.path("v1", "pods", self._namespace, pod["metadata"]["name"]) + "/status"
        try:
            self._api.patch(path, {"status": status})
        except Refused:
            return  # it is gone meanwhile

    def _status(self, pod: Object, names: set[str]) -> Object:
        if _is_of_a_job(pod):
            return {"phase": "Failed" if names & self.failing else "Succeeded"}
        first_at = self._seen_at.setdefault(pod["metadata"]["uid"], time.monotonic())
        age_s = time.monotonic() - first_at
        if names & self.crashing and age_s > _CRASHES_AFTER_S:
            return _running(pod, ready=False, restarts=1 + int(age_s // _RESTARTS_EVERY_S))
        wait_s = max((self.slow[name] for name in names & self.slow.keys()), default=0.0)
        return _running(pod, ready=not names & self.failing and age_s >= wait_s)


def _names(pod: Object) -> set[str]:
    component = pod["metadata"]["labels"].get("app.kubernetes.io/component", "")
    images = {container["image"] for container in pod["spec"]["containers"]}
    return {component} | (set() if _is_of_a_job(pod) else images)


def _is_of_a_job(pod: Object) -> bool:
    owners = pod["metadata"].get("ownerReferences", [])
    return any(owner["kind"] == "Job" for owner in owners)


def _running(pod: Object, *, ready: bool, restarts: int = 0) -> Object:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    state = {"status": str(ready), "lastTransitionTime": now}
    containers = [
        {
            "name": container["name"],
            "image": container["image"],
            "imageID": container["image"],
            "ready": ready,
            "restartCount": restarts,
            "state": _CRASHED if restarts else _STARTED,
            "lastState": _ENDED if restarts else {},
        }
        for container in pod["spec"]["containers"]
    ]
    return {
        "phase": "Running",
        "conditions": [{"type": kind, **state} for kind in ("Ready", "ContainersReady")],
        "containerStatuses": containers,
    }


def _summary(status: Object) -> tuple[object, ...]:
    """Return a status without its times."""
    conditions = {
        condition["type"]: condition["status"] for condition in status.get("conditions", [])
    }
    restarts = [container["restartCount"] for container in status.get("containerStatuses", [])]
    return status.get("phase"), conditions.get("Ready"), restarts
