"""The API's answers: discovery, values, and errors in Kubernetes' format. Pure.

Source: https://github.com/kubernetes/metrics/tree/master/pkg/apis/external_metrics
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Final

import msgspec

from orderservice_operator.children.context import METRICS_GROUP, METRICS_VERSION, QUEUE_METRIC
from orderservice_operator.children.manifest import Manifest

GROUP_VERSION: Final = f"{METRICS_GROUP}/{METRICS_VERSION}"
_REASONS: Final = {
    400: "BadRequest",
    401: "Unauthorized",
    404: "NotFound",
    405: "MethodNotAllowed",
    500: "InternalError",
    503: "ServiceUnavailable",
}


class Series(msgspec.Struct, frozen=True):
    """One value of the metric with its labels and its time."""

    labels: dict[str, str]
    value: int
    at: datetime


def group() -> Manifest:
    """Return the description of the API group."""
    version = {"groupVersion": GROUP_VERSION, "version": METRICS_VERSION}
    return {
        "kind": "APIGroup",
        "apiVersion": "v1",
        "name": METRICS_GROUP,
        "versions": [version],
        "preferredVersion": version,
    }


def resources() -> Manifest:
    """Return the resources of the group: one namespaced metric."""
    metric = {
        "name": QUEUE_METRIC,
        "singularName": "",
        "namespaced": True,
        "kind": "ExternalMetricValueList",
        "verbs": ["get"],
    }
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": GROUP_VERSION,
        "resources": [metric],
    }


def values(series_list: Iterable[Series]) -> Manifest:
    """Return a list of metric values."""
    return {
        "kind": "ExternalMetricValueList",
        "apiVersion": GROUP_VERSION,
        "metadata": {},
        "items": [_value(series) for series in series_list],
    }


def failure(code: int, message: str) -> Manifest:
    """Return a Kubernetes `Status` with the reason of a failed request."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": _REASONS.get(code, ""),
        "code": code,
    }


def _value(series: Series) -> Manifest:
    return {
        "metricName": QUEUE_METRIC,
        "metricLabels": series.labels,
        "timestamp": series.at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "value": str(series.value),
    }
