"""Fields for exposing and sizing a service have the names and shapes of Kubernetes."""

from typing import Any

from orderservice_operator.children.context import Context, MetricsApi

AUTOSCALING = "HorizontalPodAutoscaler"
BEHAVIOR = {"scaleDown": {"stabilizationWindowSeconds": 30}}


def test_the_service_is_as_its_options_say(children: Any) -> None:
    options = {
        "type": "LoadBalancer",
        "annotations": {"cloud.example/internal": "true"},
        "loadBalancerSourceRanges": ["10.0.0.0/8"],
        "externalTrafficPolicy": "Local",
    }
    manifests = children(api={"service": options}, auth={"exposeWithoutAuth": True})
    service = manifests["Service", "minimal-api"]
    assert service["metadata"]["annotations"] == options.pop("annotations")
    assert service["spec"] | options == service["spec"]


def test_both_services_have_both_families_of_addresses(children: Any) -> None:
    families = {"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6", "IPv4"]}
    manifests = children(api={"service": families})
    for name in ("minimal-api", "minimal-admin"):
        spec = manifests["Service", name]["spec"]
        assert spec | families == spec
    plain = children()["Service", "minimal-api"]["spec"]
    assert plain.keys() & families.keys() == set()


def test_each_host_of_an_ingress_has_a_rule_and_is_in_the_certificate(children: Any) -> None:
    ingress = {
        "host": "a.example",
        "extraHosts": ["b.example"],
        "tlsSecretRef": {"name": "certificate"},
    }
    manifests = children(api={"ingress": ingress}, auth={"exposeWithoutAuth": True})
    spec = manifests["Ingress", "minimal-api"]["spec"]
    hosts = ["a.example", "b.example"]
    assert [rule["host"] for rule in spec["rules"]] == hosts
    assert spec["tls"] == [{"hosts": hosts, "secretName": "certificate"}]


def test_an_autoscaler_counts_memory_and_behaves_as_told(children: Any) -> None:
    api = {"targetMemoryUtilizationPercentage": 80, "behavior": BEHAVIOR}
    worker = {"provider": "External", "behavior": BEHAVIOR}
    context = Context(metrics=MetricsApi("other", answers=True))
    manifests = children(
        "minimal", context, api={"autoscaling": api}, worker={"autoscaling": worker}
    )
    of_api, of_worker = (
        manifests[AUTOSCALING, f"minimal-{name}"]["spec"] for name in ("api", "worker")
    )
    assert of_api["behavior"] == of_worker["behavior"] == BEHAVIOR
    metrics = [metric["containerResource"] for metric in of_api["metrics"]]
    assert [metric["name"] for metric in metrics] == ["cpu", "memory"]
    assert metrics[1]["target"] == {"type": "Utilization", "averageUtilization": 80}


def test_a_budget_lets_pods_go_that_are_not_ready_unless_told_otherwise(children: Any) -> None:
    budget = {"unhealthyPodEvictionPolicy": "IfHealthyBudget"}
    manifests = children(api={"replicas": 2, "podDisruptionBudget": budget}, worker={"replicas": 2})
    policies = {
        name: manifests["PodDisruptionBudget", f"minimal-{name}"]["spec"][
            "unhealthyPodEvictionPolicy"
        ]
        for name in ("api", "worker")
    }
    assert policies == {"api": "IfHealthyBudget", "worker": "AlwaysAllow"}


def test_pods_connect_to_named_ranges_only_and_to_dns_where_it_listens(children: Any) -> None:
    block = {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}
    policy = {"egressTo": [{"ipBlock": block}], "dnsPorts": [53, 5353]}
    manifests = children(networkPolicy=policy)
    (dns,) = manifests["NetworkPolicy", "minimal-default-deny"]["spec"]["egress"]
    assert {entry["port"] for entry in dns["ports"]} == {53, 5353}
    for name in ("api", "relay", "worker", "notifier"):
        (rule,) = manifests["NetworkPolicy", f"minimal-{name}"]["spec"]["egress"]
        assert rule["to"] == [{"ipBlock": block}]
