"""The CustomResourceDefinition of OrderService."""

from pathlib import Path
from typing import Any, Final

import yaml
from msgspec import inspect

from orderservice_operator.crd.schema import Schema, schema, without_defaults
from orderservice_operator.resource import spec

FILE: Final = Path(__file__).with_name("orderservices.yaml")
_HEADER: Final = """\
# Made from orderservice_operator/resource; do not edit.
# `python -m orderservice_operator.crd` writes it anew.
"""
_READY: Final = ".status.conditions[?(@.type=='Ready')].status"
_COLUMNS: Final = (
    ("Ready", "string", _READY),
    ("Status", "string", ".status.phase"),
    ("API", "string", ".status.apiPods"),
    ("Workers", "string", ".status.workerPods"),
    ("Queue", "integer", ".status.processing.messages"),
    ("Version", "string", ".status.image"),
    ("Age", "date", ".metadata.creationTimestamp"),
)


def definition() -> dict[str, Any]:
    """Return the CustomResourceDefinition, with schemas from the structs of `resource`."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{spec.PLURAL}.{spec.GROUP}"},
        "spec": {
            "group": spec.GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": spec.KIND,
                "listKind": f"{spec.KIND}List",
                "plural": spec.PLURAL,
                "singular": spec.KIND.lower(),
                "shortNames": ["osvc"],
                "categories": [
                    "orders"
                ],  # not `all`, or `kubectl delete all --all` took every service
            },
            "versions": [_version()],
        },
    }


def text() -> str:
    """Return it as YAML, as it is committed."""
    return _HEADER + yaml.safe_dump(definition(), sort_keys=False, width=100)


def _version() -> dict[str, Any]:
    return {
        "name": spec.VERSION,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": _root()},
        "subresources": {
            "status": {},
            "scale": {
                "specReplicasPath": ".spec.worker.replicas",
                "statusReplicasPath": ".status.workerReplicas",
                "labelSelectorPath": ".status.workerSelector",
            },
        },
        "additionalPrinterColumns": [
            {"name": name, "type": kind, "jsonPath": path} for name, kind, path in _COLUMNS
        ],
    }


def _root() -> Schema:
    """Return the schema of the whole object; of metadata a CRD may bound nothing but the name."""
    root = schema(inspect.type_info(spec.OrderService))
    fields = root["properties"]
    fields["status"] = without_defaults(fields["status"])  # it says what is, not what may be
    # Until the operator has looked: kstatus takes a resource without it for finished.
    fields["status"]["default"] = {"observedGeneration": -1, "phase": "Pending"}
    condition = fields["status"]["properties"]["conditions"]["items"]
    condition["required"] = [*condition["required"], "lastTransitionTime"]
    fields["metadata"] = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 253}},
    }
    kind = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}}
    return root | {
        "description": spec.OrderService.__doc__,
        "properties": kind | fields,
        "required": ["metadata", "spec"],
    }
