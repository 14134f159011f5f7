"""The API server takes the CRD, the examples, and refuses what the rules forbid."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kube.api import Api, Object, Refused

Example = Callable[..., Object]
SERVICES = ("orders.platform.dev/v1alpha1", "orderservices")


def _dry(api: Api, manifest: Object) -> Object:
    """Send a resource to the API server as a dry run."""
    path = api.path(*SERVICES, "default", manifest["metadata"]["name"])
    answer = api.session.patch(
        api.url + path,
        json=manifest,
        params={"fieldManager": "test", "dryRun": "All", "fieldValidation": "Strict"},
        headers={"Content-Type": "application/apply-patch+yaml"},
    )
    if not answer.ok:
        raise Refused(answer.json()["message"])
    resource: Object = answer.json()
    return resource


@pytest.mark.parametrize("name", ["minimal", "full", "staging", "prod"])
def test_every_example_is_accepted(api: Api, example: Example, name: str) -> None:
    _dry(api, example(name))


def test_the_server_fills_in_the_defaults_of_the_types(api: Api, example: Example) -> None:
    spec = _dry(api, example())["spec"]
    assert spec["worker"]["prefetch"] == 10
    assert spec["messaging"]["retryDelaysSeconds"] == [5, 30, 300]
    assert spec["slo"]["availability"] == 99.9
    assert spec["api"]["podDisruptionBudget"]["enabled"] is True
    assert "autoscaling" not in spec["api"]


_SECRET = {"name": "s"}
_POLICY = {"name": "own", "limit": "100/minute", "per": "principal"}
_PARTIES = {"issuer": "https://a", "audience": "orders"}
# Section of the spec, a value that is accepted, one that is not, and what the message says.
RULES: list[tuple[str, Any, Any, str]] = [
    ("image", "a/b:1", "a/b:latest", "must not be :latest"),
    ("image", "a:5000/b@sha256:" + "0" * 64, "a:5000/b", "tag or a digest"),
    (
        "api",
        {"autoscaling": {"minReplicas": 3, "maxReplicas": 3}},
        {"autoscaling": {"minReplicas": 4, "maxReplicas": 3}},
        "minReplicas must not be greater",
    ),
    (
        "worker",
        {"autoscaling": {"minReplicas": 1, "maxReplicas": 30}},
        {"autoscaling": {"minReplicas": 31, "maxReplicas": 30}},
        "minReplicas must not be greater",
    ),
    (
        "database",
        {"replicaSecretRef": {"name": "orders-database", "key": "replica"}},
        {"replicaSecretRef": {"name": "orders-database"}},
        "is that of the primary",
    ),
    (
        "messaging",
        {"retryDelaysSeconds": [1, 1, 2]},
        {"retryDelaysSeconds": [1, 3, 2]},
        "must not fall",
    ),
    (
        "messaging",
        {"deletionPolicy": "DeleteIfEmpty", "managementUrl": "http://a:1"},
        {"deletionPolicy": "DeleteIfEmpty"},
        "needs managementUrl",
    ),
    (
        "auth",
        {"mode": "jwt", "jwksUrl": "https://a/keys", **_PARTIES},
        {"mode": "jwt", "jwksUrl": "https://a/keys", "keySecretRef": _SECRET, **_PARTIES},
        "exactly one of",
    ),
    (
        "auth",
        {"mode": "jwt", "keySecretRef": _SECRET, "algorithms": "HS256", **_PARTIES},
        {"mode": "jwt", **_PARTIES},
        "exactly one of",
    ),
    (
        "auth",
        {"mode": "jwt", "keySecretRef": _SECRET, **_PARTIES},
        {"mode": "jwt", "keySecretRef": _SECRET, "issuer": "i"},
        "needs issuer and audience",
    ),
    ("auth", {"mode": "off"}, {"mode": "off", "jwksUrl": "https://a/k"}, "have no effect"),
    (
        "auth",
        {"mode": "off", "exposeWithoutAuth": True},
        {"mode": "jwt", "jwksUrl": "https://a/k", "exposeWithoutAuth": True, **_PARTIES},
        "exposeWithoutAuth has no effect",
    ),
    *(
        ("rateLimit", {"policies": [_POLICY]}, {"policies": [*policies]}, message)
        for policies, message in (
            ([{**_POLICY, "per": "tenant"}], "per: tenant needs a claim"),
            ([{**_POLICY, "claim": "org"}], "per: tenant needs a claim"),
            ([{**_POLICY, "per": "tenant", "claim": "org"}], "per tenant need auth.mode jwt"),
            ([{**_POLICY, "name": "default"}], "default is the name of the limit"),
            ([_POLICY, _POLICY], "duplicate entries for key"),
            ([{**_POLICY, "limit": "100 a minute"}], "limit in body should match"),
        )
    ),
    (
        "networkPolicy",
        {"apiFrom": [{"podLabels": {"a": "b"}}]},
        {"apiFrom": [{}]},
        "would admit everybody",
    ),
    (
        "rollout",
        {"minReadySeconds": 9, "progressDeadlineSeconds": 10},
        {"minReadySeconds": 10, "progressDeadlineSeconds": 10},
        "every roll-out would fail",
    ),
    (
        "podTemplate",
        {"tolerations": [{"key": "a", "operator": "Equal", "value": "b"}]},
        {"tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]},
        "Exists takes no value",
    ),
    (
        "rollout",
        {"minReadySeconds": 29, "progressDeadlineSeconds": 30},
        {"minReadySeconds": 30, "progressDeadlineSeconds": 30},
        "minReadySeconds must be less",
    ),
    (
        "podTemplate",
        {"tolerations": [{"operator": "Exists"}]},
        {"tolerations": [{"operator": "Equal", "value": "b"}]},
        "Equal needs a key",
    ),
]
for _process in ("api", "worker", "relay", "notifier"):
    RULES += [
        (
            _process,
            {"podDisruptionBudget": {"minAvailable": 1}},
            {"podDisruptionBudget": {"minAvailable": 1, "maxUnavailable": 1}},
            "not both",
        ),
        (
            _process,
            {"resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "1000m"}}},
            {"resources": {"requests": {"cpu": "1001m"}, "limits": {"cpu": "1"}}},
            "requests.cpu must not be greater",
        ),
        (
            _process,
            {"resources": {"requests": {"memory": "1Gi"}, "limits": {"memory": "1024Mi"}}},
            {"resources": {"requests": {"memory": "1Gi"}, "limits": {"memory": "1000Mi"}}},
            "requests.memory must not be greater",
        ),
    ]
_OWN = {"primarySecretRef": {"name": "own"}}
_REPLICA = {"replicaSecretRef": {"name": "own", "key": "replica"}}
_SESSION = {"sessionSecretRef": {"name": "own", "key": "session"}}
for _process in ("api", "relay", "worker", "notifier", "migrations", "reconciliation"):
    RULES += [
        (
            _process,
            {"database": _OWN},
            {"database": _OWN | _SESSION},
            f"{_process}.database must have sessionSecretRef if",
        ),
    ]
for _process in ("api", "worker"):
    RULES += [
        (
            _process,
            {"database": _OWN},
            {"database": _OWN | _REPLICA},
            f"{_process}.database must have replicaSecretRef if",
        ),
    ]
# A template is the same type wherever it is; one place shows each of its rules.
_TOLERATED = {"key": "a", "effect": "NoExecute", "tolerationSeconds": 5}
_FIELD = {"fieldRef": {"fieldPath": "status.podIP"}}
RULES += [
    (
        "podTemplate",
        {"labels": {"example.org/team": "a"}},
        {"labels": {"example.org/a/b": "a"}},
        "a key is a name",
    ),
    ("podTemplate", {"annotations": {"a": "b"}}, {"annotations": {"a b": "c"}}, "a key is a name"),
    ("podTemplate", {"nodeSelector": {"a": "b"}}, {"nodeSelector": {"-a": "b"}}, "a key is a name"),
    (
        "podTemplate",
        {"tolerations": [_TOLERATED]},
        {"tolerations": [_TOLERATED | {"effect": "NoSchedule"}]},
        "needs effect NoExecute",
    ),
    (
        "podTemplate",
        {"env": [{"name": "A", "value": ""}]},
        {"env": [{"name": "A", "value": "b", "valueFrom": _FIELD}]},
        "give value or valueFrom",
    ),
    (
        "podTemplate",
        {"env": [{"name": "A", "valueFrom": _FIELD}]},
        {"env": [{"name": "A", "valueFrom": {}}]},
        "exactly one source",
    ),
    (
        "podTemplate",
        {"volumes": [{"name": "a", "emptyDir": {"medium": "Memory"}}]},
        {"volumes": [{"name": "tmp", "emptyDir": {}}]},
        "are volumes of the operator",
    ),
    (
        "podTemplate",
        {"volumeMounts": [{"name": "a", "mountPath": "/a"}]},
        {"volumeMounts": [{"name": "a", "mountPath": "/etc/orders/ca"}]},
        "belong to the operator",
    ),
    (
        "podTemplate",
        {"containers": [{"name": "a", "image": "b:1"}]},
        {"containers": [{"name": "gateway", "image": "b:1"}]},
        "it is of the operator",
    ),
    (
        "networkPolicy",
        {"egressTo": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}]},
        {"egressTo": [{"ipBlock": {"cidr": "10.0.0.0/8"}, "podLabels": {"a": "b"}}]},
        "pods or a network",
    ),
    (
        "networkPolicy",
        {"egressTo": [{"ipBlock": {"cidr": "fd00::/8"}}]},
        {"egressTo": [{"ipBlock": {"cidr": "10.0.0.300/8"}}]},
        "not a network",
    ),
    (
        "api",
        {"trustedProxies": ["10.0.0.0/8", "fd00::/8"]},
        {"trustedProxies": ["999.1.1.1/99"]},
        "not a network",
    ),
    (
        "api",
        {"service": {"type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.0/8"]}},
        {"service": {"loadBalancerSourceRanges": ["10.0.0.0/8"]}},
        "need type LoadBalancer",
    ),
    (
        "api",
        {"service": {"type": "NodePort", "externalTrafficPolicy": "Local"}},
        {"service": {"externalTrafficPolicy": "Local"}},
        "needs type NodePort or LoadBalancer",
    ),
    (
        "api",
        {"ingress": {"host": "*.example.org", "extraHosts": ["b.example.org"]}},
        {"ingress": {"host": "10.0.0.1"}},
        "not an address",
    ),
    (
        "api",
        {"resources": {"limits": {"ephemeral-storage": "1Gi"}}},
        {
            "resources": {
                "requests": {"ephemeral-storage": "2Gi"},
                "limits": {"ephemeral-storage": "1Gi"},
            }
        },
        "requests.ephemeral-storage must not be greater",
    ),
]
# What stands in several places is one type.
_EVERYWHERE = ("a key is a name", "requests.", "not a network", "not an address", "podTemplate")
# The same for bounds and forms.
FORMS: list[tuple[str, Any, Any, str]] = [
    ("image", "a.example:5000/b/c:1", "a.example/Orders:1", "should match"),
    ("image", "b@sha256:" + "a" * 64, "b@sha256:zz", "should match"),
    (
        "database",
        {"primarySecretRef": {"name": "a.b"}},
        {"primarySecretRef": {"name": "a..b"}},
        "match",
    ),
    (
        "podTemplate",
        {"tolerations": [{"key": "example.org/dedicated"}]},
        {"tolerations": [{"key": "a b"}]},
        "should match",
    ),
    (
        "podTemplate",
        {"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]},
        {"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]},
        "duplicate",
    ),
    (
        "worker",
        {"resources": {"requests": {"cpu": 1}, "limits": {"cpu": 2, "memory": "1Gi"}}},
        {"resources": {"requests": {"cpu": 3}, "limits": {"cpu": 2}}},
        "must not be greater",
    ),
    ("worker", {"prefetch": 1000}, {"prefetch": 1001}, "less than or equal to 1000"),
    ("messaging", {"retryDelaysSeconds": [1, 2, 3]}, {"retryDelaysSeconds": [1, 2]}, "at least 3"),
    (
        "messaging",
        {"managementUrl": "http://broker:15672"},
        {"managementUrl": "http://user:password@broker:15672"},
        "should match",
    ),
    (
        "messaging",
        {"managementUrl": "https://broker-0.broker:65535/mq"},
        {"managementUrl": "https://broker:65536"},
        "should match",
    ),
    ("upstreams", {"retries": 0}, {"payment": {"url": "http://a:b:c"}}, "should match"),
    (
        "podTemplate",
        {"labels": {"team": "orders.v1"}},
        {"labels": {"team": "-orders"}},
        "should match",
    ),
    ("mode", "Observe", "Watch", "Unsupported value"),
    ("podTemplate", {"env": []}, {"env": [{"name": "lower", "value": ""}]}, "should match"),
    (
        "api",
        {"resources": {"limits": {"cpu": "1500m"}}},
        {"resources": {"limits": {"cpu": "much"}}},
        "should match",
    ),
    ("api", {"trustedProxies": ["fd00::/8"]}, {"trustedProxies": ["10.0.0.1"]}, "should match"),
    (
        "api",
        {"httpRoute": {"parentRefs": [{"name": "g"}], "hostnames": ["*.example"]}},
        {"httpRoute": {"parentRefs": []}},
        "at least 1",
    ),
    ("slo", {"availability": 99.99}, {"availability": 100}, "less than 100"),
]


@pytest.mark.parametrize(("section", "good", "bad", "message"), RULES + FORMS)
def test_a_rule_accepts_and_refuses(
    api: Api, example: Example, section: str, good: Any, bad: Any, message: str
) -> None:
    _dry(api, _meant_to_be_open(example(**{section: good})))
    with pytest.raises(Refused, match=message):
        _dry(api, _meant_to_be_open(example(**{section: bad})))


def _meant_to_be_open(manifest: Object) -> Object:
    """Allow the entrances that other rules are about."""
    manifest["spec"].setdefault("auth", {"exposeWithoutAuth": True})
    return manifest


_NEEDS_TOKENS = "need auth.mode jwt"


@pytest.mark.parametrize(
    "entrance",
    [
        {"ingress": {"host": "shop.example"}},
        {"httpRoute": {"parentRefs": [{"name": "g"}]}},
        {"service": {"type": "NodePort"}},
        {"service": {"type": "LoadBalancer"}},
    ],
    ids=str,
)
def test_there_is_no_entrance_without_tokens_unless_it_is_said(
    api: Api, example: Example, entrance: Object
) -> None:
    tokens = {"mode": "jwt", "jwksUrl": "https://a/keys", **_PARTIES}
    with pytest.raises(Refused, match=_NEEDS_TOKENS):
        _dry(api, example(api=entrance))
    with pytest.raises(Refused, match=_NEEDS_TOKENS):
        _dry(api, example(api=entrance, auth={"mode": "off"}))
    _dry(api, example(api=entrance, auth=tokens))
    _dry(api, example(api=entrance, auth={"mode": "off", "exposeWithoutAuth": True}))


@pytest.mark.parametrize(
    ("good", "bad", "message"),
    [("n" * 40, "n" * 41, "not be longer than 40"), ("a-1", "1-a", "begins with a letter")],
)
def test_a_name_leaves_room_for_suffixes(
    api: Api, example: Example, good: str, bad: str, message: str
) -> None:
    _dry(api, example() | {"metadata": {"name": good}})
    with pytest.raises(Refused, match=message):
        _dry(api, example() | {"metadata": {"name": bad}})


def test_the_virtual_host_stays(api: Api, example: Example, namespace: str) -> None:
    api.apply(example(), namespace)
    api.apply(example(messaging={"deliveryLimit": 30}), namespace)
    with pytest.raises(Refused, match="vhost cannot be changed"):
        api.apply(example(messaging={"vhost": "other"}), namespace)


def test_an_unknown_member_is_refused_when_asked_strictly(api: Api, example: Example) -> None:
    with pytest.raises(Refused, match="not declared in schema"):
        _dry(api, example(worker={"prefetsch": 1}))


def test_every_rule_has_a_case_here(api: Api) -> None:
    crd = api.get(
        "apiextensions.k8s.io/v1",
        "customresourcedefinitions",
        "",
        "orderservices.orders.platform.dev",
    )
    rules = set(_rules(crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]))
    cases = [(".spec" if section == "image" else f".spec.{section}", t) for section, *_, t in RULES]
    cases += [
        ("", "not be longer than 40"),
        ("", "begins with a letter"),
        ("", "must not be default"),
    ]
    cases += [(".spec.messaging", "vhost cannot be changed")]
    cases += [(".spec", text) for text in (_NEEDS_TOKENS, "per tenant need auth.mode jwt")]
    assert len(rules) > 20
    cases += [(".spec", part) for _, part in cases if ".database must have" in part]
    parts = {part for _, part in cases if part.startswith(_EVERYWHERE)} | {"requests."}
    assert not [
        (rule_path, text)
        for rule_path, text in rules
        if not any(rule_path.startswith(path) and part in text for path, part in cases)
        and ".podTemplate" not in rule_path.removeprefix(".spec.podTemplate")
        and not any(part in text for part in parts)
    ]


def test_every_rule_names_the_field(api: Api) -> None:
    crd = api.get(
        "apiextensions.k8s.io/v1",
        "customresourcedefinitions",
        "",
        "orderservices.orders.platform.dev",
    )
    objects = _objects(
        crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    )
    rules = [rule for node in objects for rule in node.get("x-kubernetes-validations", [])]
    assert rules
    assert [rule["message"] for rule in rules if "fieldPath" not in rule] == []


def _objects(node: Any) -> Iterator[Any]:
    """Yield every object with members: the rules of others are about themselves."""
    if "properties" in node:
        yield node
    for child in node.get("properties", {}).values():
        yield from _objects(child)
    if "items" in node:
        yield from _objects(node["items"])


def _rules(node: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield the place and the message of every rule."""
    if not isinstance(node, dict):
        return
    for rule in node.get("x-kubernetes-validations", []):
        yield path, rule["message"]
    for name, child in node.get("properties", {}).items():
        yield from _rules(child, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        yield from _rules(node.get(key), path)


def test_the_printed_columns_and_scale_work(api: Api, example: Example, namespace: str) -> None:
    api.apply(example(), namespace)
    path = api.path(*SERVICES, namespace, "minimal")
    answer = api.session.get(
        api.url + path, headers={"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
    )
    columns = [column["name"] for column in answer.json()["columnDefinitions"]]
    assert columns == ["Name", "Ready", "Status", "API", "Workers", "Queue", "Version", "Age"]
    api.patch(path + "/scale", {"spec": {"replicas": 5}})
    assert api.get(*SERVICES, namespace, "minimal")["spec"]["worker"]["replicas"] == 5


def test_a_resource_that_nobody_has_looked_at_says_so(
    api: Api, example: Example, namespace: str
) -> None:
    """Kstatus takes one without an observed generation for finished."""
    created = api.apply(example(), namespace)
    assert created["status"] == {"observedGeneration": -1, "phase": "Pending"}


def test_the_name_of_every_namespaces_account_is_refused(
    api: Api, example: Example, namespace: str
) -> None:
    with pytest.raises(Refused, match="must not be default"):
        api.apply(example() | {"metadata": {"name": "default"}}, namespace)
