"""The schemas of the charts' values: closed, so that a misspelt key is refused by its name."""

from typing import Any, Final

import yaml

Schema = dict[str, Any]

_DRAFT: Final = "http://json-schema.org/draft-07/schema#"
BOOLEAN: Final[Schema] = {"type": "boolean"}
TEXT: Final[Schema] = {"type": "string"}
NAME: Final[Schema] = {"type": "string", "pattern": "^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$"}
SERVICE_NAME: Final[Schema] = {"type": "string", "pattern": "^([a-z]([-a-z0-9]*[a-z0-9])?)?$"}
PORT: Final[Schema] = {"type": "integer", "minimum": 1, "maximum": 65535}
COUNT: Final[Schema] = {"type": "integer", "minimum": 1, "maximum": 1000}
TEXTS: Final[Schema] = {"type": "object", "additionalProperties": TEXT}
DIGEST: Final[Schema] = {"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"}
TAG: Final[Schema] = {
    "type": "string",
    "pattern": "^([A-Za-z0-9_][-.A-Za-z0-9_]{0,127})?$",
    "not": {"const": "latest"},
}
REFERENCE: Final[Schema] = {"type": "string", "pattern": "^[^\\s]+[:@][^\\s:@]+.*$"}
STORAGE: Final[Schema] = {"type": "string", "pattern": "^([0-9]+(Mi|Gi|Ti))?$"}
ADDRESS: Final[Schema] = {"type": "string", "pattern": "^(https?://[^\\s]+)?$"}
AMOUNTS: Final[Schema] = {
    "type": "object",
    "additionalProperties": {"type": ["string", "number"]},
}


def closed(**properties: Schema) -> Schema:
    """Return an object with these members and no others."""
    return {"type": "object", "additionalProperties": False, "properties": properties}


def items(schema: Schema) -> Schema:
    """Return the schema of a list of such items."""
    return {"type": "array", "items": schema}


RESOURCES: Final = closed(requests=AMOUNTS, limits=AMOUNTS)
ANYTHING: Final[Schema] = {"type": "object"}


def operator() -> Schema:
    """Return the schema of orderservice-operator."""
    return _root(
        fullnameOverride=SERVICE_NAME | {"maxLength": 46},
        image=closed(
            repository=TEXT,
            tag=TAG,
            digest=DIGEST,
            pullPolicy={"enum": ["IfNotPresent", "Always", "Never"]},
        ),
        imagePullSecrets=items(NAME),
        replicas={"type": "integer", "minimum": 0, "maximum": 10},
        watchNamespace=NAME,
        watchNamespaces=items(NAME),
        watchSecrets=BOOLEAN,
        logLevel={"enum": ["debug", "info", "warning", "error"]},
        env={
            "type": "object",
            "propertyNames": {"pattern": "^[A-Z_][A-Z0-9_]*$"},
            "additionalProperties": TEXT,
        },
        crds=closed(install=BOOLEAN, keep=BOOLEAN),
        serviceAccount=closed(create=BOOLEAN, name=NAME, annotations=TEXTS),
        rbac=closed(create=BOOLEAN, aggregate=BOOLEAN),
        externalMetrics=closed(enabled=BOOLEAN, port=PORT),
        podDisruptionBudget=closed(enabled=BOOLEAN, maxUnavailable=COUNT),
        networkPolicy=closed(
            enabled=BOOLEAN,
            metricsFrom=items(ANYTHING),
            apiServerPorts=items(PORT),
            brokerPorts=items(PORT),
        ),
        serviceMonitor=closed(enabled=BOOLEAN, interval=TEXT, labels=TEXTS),
        prometheusRule=closed(
            enabled=BOOLEAN, labels=TEXTS, runbookBaseUrl=ADDRESS, dashboardBaseUrl=ADDRESS
        ),
        dashboards=closed(enabled=BOOLEAN, labels=TEXTS, annotations=TEXTS),
        resources=RESOURCES,
        podLabels=TEXTS,
        podAnnotations=TEXTS,
        nodeSelector=TEXTS,
        tolerations=items(ANYTHING),
        priorityClassName=NAME,
    )


def environment(definition: str) -> Schema:
    """Return the schema of orderservice-environment; `definition` is the CRD, for `spec`."""
    server = {"enabled": BOOLEAN, "image": REFERENCE, "resources": RESOURCES}
    entry = closed(key=TEXT, property=TEXT, version=TEXT)
    return _root(
        nameOverride=SERVICE_NAME | {"maxLength": 40},
        fullnameOverride=SERVICE_NAME | {"maxLength": 40},
        storageClass=NAME,
        image=closed(repository=TEXT, tag=TAG, digest=DIGEST),
        spec=spec(definition),
        developmentPassword=TEXT | {"maxLength": 128},
        tls=closed(secretName=NAME),
        postgresql=closed(
            **server,
            provider={"enum": ["Pods", "CloudNativePG"]},
            instances={"type": "integer", "minimum": 1, "maximum": 9},
            minSyncReplicas={"type": "integer", "minimum": 0, "maximum": 8},
            password=TEXT | {"maxLength": 128},
            pooler=closed(enabled=BOOLEAN, instances=COUNT),
            storage=STORAGE,
            maxConnections={"type": "integer", "minimum": 50, "maximum": 10_000},
            replica=closed(enabled=BOOLEAN),
        ),
        rabbitmq=closed(
            **server,
            provider={"enum": ["Pods", "ClusterOperator"]},
            instances={"type": "integer", "minimum": 1, "maximum": 9},
            storage=STORAGE,
        ),
        valkey=closed(**server),
        simulators=closed(enabled=BOOLEAN, resources=RESOURCES),
        externalSecrets=closed(
            enabled=BOOLEAN,
            storeKind={"enum": ["ClusterSecretStore", "SecretStore"]},
            storeName=NAME,
            refreshInterval=TEXT,
            secrets={
                "type": "object",
                "additionalProperties": {"type": "object", "additionalProperties": entry},
            },
        ),
        loadTest=closed(
            **server,
            # With the longest name and `-load-master-` a Job's name, of 63 characters.
            run=NAME | {"minLength": 1, "maxLength": 10},
            scenario=NAME | {"minLength": 1},
            workers=COUNT,
            arguments=items(TEXT),
            secretName=NAME,
            grafanaUrl=ADDRESS,
            storage=STORAGE,
        ),
        test=closed(placeOrder=BOOLEAN),
        networkPolicy=closed(enabled=BOOLEAN),
    )


def spec(definition: str) -> Schema:
    """Return the resource's own schema of `spec`, closed; the chart fills in what is required."""
    (version,) = yaml.safe_load(definition)["spec"]["versions"]
    return _closed(version["schema"]["openAPIV3Schema"]["properties"]["spec"])


def _closed(source: Schema, *, element: bool = False) -> Schema:
    """Return a part of the CRD's schema; `element`: of a list, where the chart fills nothing in."""
    copied = ("type", "enum", "pattern", "minimum", "maximum", "minLength", "maxLength", "maxItems")
    schema = {key: source[key] for key in copied if key in source}
    if element and "required" in source:
        schema["required"] = source["required"]
    if "x-kubernetes-int-or-string" in source:
        schema["type"] = ["integer", "string"]
    if "x-kubernetes-preserve-unknown-fields" in source:
        return {"type": "object"}
    if "properties" in source:
        members = source["properties"].items()
        schema["properties"] = {key: _closed(member, element=element) for key, member in members}
        schema["additionalProperties"] = False
    elif isinstance(source.get("additionalProperties"), dict):
        schema["additionalProperties"] = _closed(source["additionalProperties"], element=True)
    if "items" in source:
        schema["items"] = _closed(source["items"], element=True)
    return schema


def _root(**properties: Schema) -> Schema:
    # Helm puts `global` into the values of every chart, an umbrella chart its condition `enabled`.
    common = {"commonLabels": TEXTS, "commonAnnotations": TEXTS, "enabled": BOOLEAN}
    schema = closed(**properties, **common, **{"global": ANYTHING})
    members = {name: _nullable(member) for name, member in schema["properties"].items()}
    return {"$schema": _DRAFT} | schema | {"properties": members}


def _nullable(schema: Schema) -> Schema:
    """Admit null at every level: it takes a value away, and Helm shows it to the schema."""
    nullable = dict(schema)
    if "type" in schema:
        kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        nullable["type"] = [*kinds, "null"]
    if "enum" in schema:
        nullable["enum"] = [*schema["enum"], None]
    if "properties" in schema:
        members = schema["properties"].items()
        nullable["properties"] = {name: _nullable(member) for name, member in members}
    if isinstance(schema.get("additionalProperties"), dict):
        nullable["additionalProperties"] = _nullable(schema["additionalProperties"])
    return nullable
