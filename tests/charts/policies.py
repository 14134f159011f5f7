"""Rules that every workload of the platform obeys with any values."""

from collections.abc import Iterator
from typing import Any, Final

Manifest = dict[str, Any]

_WORKLOADS: Final = frozenset({"Deployment", "StatefulSet", "Job"})
_SERVING: Final = frozenset({"Deployment", "StatefulSet"})
_LABELS: Final = ("app.kubernetes.io/managed-by", "app.kubernetes.io/part-of")
_RESTARTED_WITHIN_S: Final = 30


def violations(manifests: list[Manifest]) -> list[str]:
    """Return descriptions of the violations."""
    return [
        f"{manifest['kind']} {manifest['metadata']['name']}: {problem}"
        for manifest in manifests
        for problem in (*_labels(manifest), *_pods(manifest))
    ]


def _labels(manifest: Manifest) -> Iterator[str]:
    labels = manifest["metadata"].get("labels", {})
    yield from (f"no label {name}" for name in _LABELS if name not in labels)


def _pods(manifest: Manifest) -> Iterator[str]:
    spec = pod_spec(manifest)
    if not spec:
        return
    yield from _pod(spec)
    for container in (*spec.get("initContainers", []), *spec["containers"]):
        yield from _container(container)
    if manifest["kind"] in _SERVING:
        for container in spec["containers"]:
            probes = ("startupProbe", "readinessProbe", "livenessProbe")
            yield from (f"no {probe}" for probe in probes if probe not in container)
            yield from _liveness(container.get("livenessProbe", {}))


def _liveness(probe: Manifest) -> Iterator[str]:
    """Complain of a probe that does not see a frozen process, or is slow to have it restarted."""
    if "tcpSocket" in probe:
        yield "the kernel answers the liveness probe"
    if probe.get("periodSeconds", 10) * probe.get("failureThreshold", 3) > _RESTARTED_WITHIN_S:
        yield f"a frozen process is restarted after more than {_RESTARTED_WITHIN_S} s"


def pod_spec(manifest: Manifest) -> Manifest:
    """Return the spec of the pods that a manifest makes, or an empty one."""
    spec: Manifest = {}
    if manifest["kind"] in _WORKLOADS:
        spec = manifest["spec"]["template"]["spec"]
    elif manifest["kind"] == "Pod":
        spec = manifest["spec"]
    return spec


def _pod(spec: Manifest) -> Iterator[str]:
    security = spec["securityContext"]
    if not security.get("runAsNonRoot") or not security.get("runAsUser"):
        yield "runs as root, or as anybody"
    if security.get("seccompProfile") != {"type": "RuntimeDefault"}:
        yield "no seccomp profile"
    if any(spec.get(name) for name in ("hostNetwork", "hostPID", "hostIPC")):
        yield "shares something with the node"
    if any("hostPath" in volume for volume in spec.get("volumes", [])):
        yield "mounts a folder of the node"
    if "automountServiceAccountToken" not in spec:
        yield "does not say whether it needs a token"


def _container(container: Manifest) -> Iterator[str]:
    security = container["securityContext"]
    if security.get("privileged") or security.get("allowPrivilegeEscalation") is not False:
        yield "may become privileged"
    if not security.get("readOnlyRootFilesystem"):
        yield "may write its root file system"
    if security.get("capabilities") != {"drop": ["ALL"]}:
        yield "has capabilities"
    resources = container.get("resources", {})
    if set(resources.get("requests", {})) < {"cpu", "memory"}:
        yield "no requests"
    if "memory" not in resources.get("limits", {}):
        yield "no limit of memory"
    if container["image"].endswith(":latest") or ":" not in container["image"]:
        yield "an image of no version"
