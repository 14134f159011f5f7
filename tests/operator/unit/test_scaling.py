"""The worker's scaler, the objects made for it, and what the status says about it."""

from typing import Any

import pytest

from orderservice_operator.children.context import Context, MetricsApi
from orderservice_operator.children.kinds import SCALED_OBJECT
from orderservice_operator.children.manifest import OWNER_LABEL, Reference
from orderservice_operator.children.scaling import choose, needs_operator
from orderservice_operator.state import live_objects
from orderservice_operator.state.plan import diff

NOBODY = MetricsApi(can_serve=True)
OURS = MetricsApi("operator", "this operator", can_serve=True)
OTHER = MetricsApi("other", "Service x/adapter", can_serve=True)
ANSWERS = MetricsApi("other", "Service x/adapter", answers=True, can_serve=True)
NO_SERVER = MetricsApi()
KEDA = frozenset({SCALED_OBJECT})
NONE = frozenset[str]()

HPA = ("HorizontalPodAutoscaler", "full-worker")
DEPLOYMENT = ("Deployment", "full-worker")


def _asking(provider: str) -> dict[str, Any]:
    return {"worker": {"autoscaling": {"provider": provider}}}


@pytest.mark.parametrize(
    ("provider", "kinds", "metrics", "verdict"),
    [
        ("Auto", NONE, NOBODY, ("Builtin", "Builtin")),
        ("Auto", NONE, OURS, ("Builtin", "Builtin")),
        ("Auto", NONE, ANSWERS, ("External", "External")),
        ("Auto", KEDA, ANSWERS, ("KEDA", "KEDA")),
        ("Auto", NONE, OTHER, (None, "NoProvider")),
        ("Auto", NONE, NO_SERVER, (None, "NoProvider")),
        ("KEDA", NONE, OURS, (None, "NoKEDA")),
        ("KEDA", KEDA, NOBODY, ("KEDA", "KEDA")),
        ("External", KEDA, ANSWERS, ("External", "External")),
        ("External", KEDA, OTHER, (None, "MetricNotAnswered")),
        ("External", NONE, OURS, (None, "NoExternalMetrics")),
        ("Builtin", KEDA, OURS, ("Builtin", "Builtin")),
        ("Builtin", NONE, ANSWERS, (None, "HeldByOther")),
        ("Builtin", NONE, NO_SERVER, (None, "NotSetUp")),
    ],
)
def test_who_scales_the_worker(
    make: Any, provider: str, kinds: frozenset[str], metrics: MetricsApi, verdict: tuple[str, str]
) -> None:
    choice = choose(make("full", **_asking(provider)), Context(kinds, metrics=metrics))
    assert (choice.provider, choice.reason) == verdict


def test_a_choice_says_why_it_is_not_another(make: Any) -> None:
    choice = choose(make("full", **_asking("Auto")), Context(metrics=NOBODY))
    assert choice.message == (
        "the HPA asks this operator; KEDA is not installed; no other server serves external metrics"
    )


def test_without_a_management_user_keda_is_passed_over(make: Any) -> None:
    service = make("staging", messaging={"managementUrl": "http://rabbit:15672"})
    assert choose(service, Context(KEDA, metrics=NOBODY)).provider == "Builtin"


@pytest.mark.parametrize(
    ("provider", "url", "verdict", "reason"),
    [
        ("Auto", "https://rabbit:15671", "Builtin", "KEDA cannot use caBundleSecretRef"),
        ("KEDA", "https://rabbit:15671", "KEDA", "must trust the authority"),
        ("Auto", "http://rabbit:15672", "KEDA", "KEDA scales: it is installed"),
    ],
)
def test_keda_is_passed_over_where_it_would_not_trust_the_broker(
    make: Any, provider: str, url: str, verdict: str, reason: str
) -> None:
    messaging = {"managementUrl": url, "managementSecretRef": {"name": "u"}}
    bundle = {"caBundleSecretRef": {"name": "authorities"}}
    service = make("full", messaging=messaging, **_asking(provider), **bundle)
    choice = choose(service, Context(KEDA, metrics=NOBODY))
    assert (choice.provider, reason in choice.message) == (verdict, True)


def test_the_operator_cannot_count_without_the_management_api(make: Any) -> None:
    service = make("minimal", worker={"autoscaling": {"provider": "Builtin"}})
    assert choose(service, Context(metrics=OURS)).reason == "NoManagementUrl"


def test_the_operator_is_needed_only_by_resources_that_would_use_it(make: Any) -> None:
    assert needs_operator(make("full", **_asking("Auto")), NONE)
    assert not needs_operator(make("full", **_asking("Auto")), KEDA)
    assert not needs_operator(make("full", **_asking("External")), NONE)
    assert not needs_operator(make("full", mode="Observe", **_asking("Builtin")), NONE)
    assert not needs_operator(make("minimal"), NONE)


def test_an_autoscaled_process_keeps_the_replicas_it_has(children: Any) -> None:
    manifests = children("full", Context(metrics=OURS), **_asking("Builtin"))
    assert "replicas" not in manifests["Deployment", "full-api"]["spec"]
    assert "replicas" not in manifests[DEPLOYMENT]["spec"]
    assert "replicas" in manifests["Deployment", "full-relay"]["spec"]


def test_the_autoscaler_asks_for_the_queue_of_its_resource_only(children: Any) -> None:
    autoscaler = children("full", Context(metrics=OURS), **_asking("Builtin"))[HPA]
    assert autoscaler["metadata"]["annotations"] == {
        "orders.platform.dev/metrics-provider": "Builtin"
    }
    (metric,) = autoscaler["spec"]["metrics"]
    assert metric["external"]["metric"] == {
        "name": "orderservice_queue_messages",
        "selector": {"matchLabels": {"orderservice": "full", "queue": "order-processing"}},
    }


def test_without_a_scaler_a_new_worker_has_the_replicas_of_its_spec(children: Any) -> None:
    manifests = children("full", Context(metrics=OTHER), **_asking("Builtin"))
    assert manifests[DEPLOYMENT]["spec"]["replicas"] == 4
    assert HPA not in manifests


def test_a_scaler_that_goes_leaves_as_many_workers_as_there_are(children: Any) -> None:
    manifests = children("full", Context(metrics=OTHER, workers=17), **_asking("Builtin"))
    assert manifests[DEPLOYMENT]["spec"]["replicas"] == 17


def test_a_worker_that_is_not_to_be_scaled_has_the_replicas_of_its_spec(children: Any) -> None:
    manifests = children("minimal", Context(metrics=OURS, workers=17))
    assert manifests["Deployment", "minimal-worker"]["spec"]["replicas"] == 2


def test_only_one_scaler_exists_at_a_time(children: Any) -> None:
    for context in (Context(KEDA), Context(metrics=OURS), Context(metrics=ANSWERS), Context()):
        kinds = {kind for kind, name in children("full", context) if name == "full-worker"}
        assert len(kinds & {"HorizontalPodAutoscaler", "ScaledObject"}) <= 1


def test_the_autoscaler_that_keda_makes_is_not_pruned(children: Any) -> None:
    """It has the labels of the ScaledObject, by which our children are watched."""
    owner = {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "name": "full-worker",
        "controller": True,
    }
    keda_autoscaler = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {
            "name": "keda-hpa-full-worker",
            "labels": {OWNER_LABEL: "full"},
            "ownerReferences": [owner],
        },
    }
    reference = Reference("autoscaling/v2", "HorizontalPodAutoscaler", "keda-hpa-full-worker")
    desired = children("full", Context(KEDA)).values()
    assert diff(desired, {reference: keda_autoscaler}, staying=frozenset()).deletions == ()


def test_a_scaled_object_tells_how_it_is() -> None:
    condition = {"type": "Ready", "status": "False", "reason": "R", "message": "m"}
    reference = Reference("keda.sh/v1alpha1", "ScaledObject", "full-worker")
    live = {reference: {"status": {"conditions": [condition]}}}
    assert live_objects.scaling("full-worker", live) == ("False", "R", "m")
    assert live_objects.scaling("full-worker", {reference: {}}) == (
        "Unknown",
        "NotLooked",
        "the autoscaler has not reported yet",
    )
