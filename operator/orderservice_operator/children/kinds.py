"""The kinds of children, and their paths at the API server."""

from typing import Final

import msgspec

SERVICE_MONITOR: Final = "ServiceMonitor"
PROMETHEUS_RULE: Final = "PrometheusRule"
SCALED_OBJECT: Final = "ScaledObject"
HTTP_ROUTE: Final = "HTTPRoute"


class Kind(msgspec.Struct, frozen=True):
    """A kind of object and its name in paths."""

    api_version: str
    name: str
    plural: str

    def path(self, namespace: str | None = None, name: str | None = None) -> str:
        """Return the path of an object, or of all in a namespace, or of all."""
        root = "/api" if "/" not in self.api_version else "/apis"
        segments = [root, self.api_version]
        segments += ["namespaces", namespace] if namespace else []
        return "/".join([*segments, self.plural, *([name] if name else [])])


ALWAYS: Final = (
    Kind("v1", "ServiceAccount", "serviceaccounts"),
    Kind("v1", "ConfigMap", "configmaps"),
    Kind("v1", "Service", "services"),
    Kind("apps/v1", "Deployment", "deployments"),
    Kind("apps/v1", "ControllerRevision", "controllerrevisions"),
    Kind("batch/v1", "Job", "jobs"),
    Kind("batch/v1", "CronJob", "cronjobs"),
    Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets"),
    Kind("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers"),
    Kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies"),
    Kind("networking.k8s.io/v1", "Ingress", "ingresses"),
)
# Kinds that only some clusters have.
OPTIONAL: Final = (
    Kind("monitoring.coreos.com/v1", SERVICE_MONITOR, "servicemonitors"),
    Kind("monitoring.coreos.com/v1", PROMETHEUS_RULE, "prometheusrules"),
    Kind("gateway.networking.k8s.io/v1", HTTP_ROUTE, "httproutes"),
    Kind("keda.sh/v1alpha1", SCALED_OBJECT, "scaledobjects"),
    Kind("keda.sh/v1alpha1", "TriggerAuthentication", "triggerauthentications"),
)

_BY_NAME: Final = {(kind.api_version, kind.name): kind for kind in (*ALWAYS, *OPTIONAL)}


def kind_of(api_version: str, name: str) -> Kind:
    """Return the kind of an object."""
    return _BY_NAME[api_version, name]
