"""From an empty cluster to orders on real pods and back; each test continues the previous one."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec
import pytest

from charts.helm import ENVIRONMENT, OPERATOR, Helm, values_of
from e2e import endpoints, private, runbook
from e2e.cluster import Cluster
from e2e.customers import Customers
from e2e.shop import NAMESPACE, RELEASE, SYSTEM, Shop
from kube import required

OPERATOR_RELEASE = "orderservice-operator"
PROCESSES = ("api", "relay", "worker", "notifier")
Figure = Callable[[str, str], None]
Install = Callable[..., None]
Kubectl = Callable[..., str]


@pytest.fixture(scope="session")
def install_environment(helm: Helm, running: Cluster) -> Install:
    """Install the environment, or upgrade it, with settings."""
    values = [word for file in running.values for word in ("--values", str(file))]

    def install(*settings: str, namespace: str = NAMESPACE, options: tuple[str, ...] = ()) -> None:
        own = [word for setting in settings for word in ("--set", setting)]
        helm.install(RELEASE, ENVIRONMENT, namespace, *values_of("dev"), *values, *options, *own)

    return install


def check_books(customers: Customers) -> str:
    """Compare the accepted orders with the books; return their number and the other answers."""
    assert customers.books() == []
    others = {name: count for name, count in customers.answers.items() if name != "202"}
    summary = f"answers that were tried again: {others}" if others else "every request answered 202"
    return f"{customers.accepted} orders, none lost; {summary}"


def wait_for_load_test(shop: Shop) -> str:
    """Wait until the load test's Jobs ended and passed; return a summary of the result."""
    shop.wait("both Jobs have ended", lambda: shop.jobs_over("load-master", "load-worker"))
    result = msgspec.json.decode(shop.log("load-master").splitlines()[-1])
    assert result["verdict"] == 0, [check for check in result["checks"] if not check["holds"]]
    checked = [finding for finding in result["findings"] if finding["checked"]]
    assert checked
    assert all(finding["broken"] == 0 for finding in checked), checked
    orders, invariants = result["figures"]["orders.accepted"], len(result["findings"])
    return f"{orders:.0f} orders, {len(checked)} of {invariants} invariants checked and held"


def namespace(shop: Shop, name: str) -> None:
    level = {"pod-security.kubernetes.io/enforce": "restricted"}
    metadata = {"name": name, "labels": level}
    shop.api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})


def test_both_charts_install_and_the_order_service_becomes_ready(
    shop: Shop,
    running: Cluster,
    helm: Helm,
    install_environment: Install,
    kubectl: Kubectl,
    figure: Figure,
) -> None:
    _, other = shop.schedulable()
    namespace(shop, SYSTEM)
    namespace(shop, NAMESPACE)
    shop.admit(running.outside)
    image = "image.repository=localhost/orderservice-operator,image.tag=dev"
    helm.install(OPERATOR_RELEASE, OPERATOR, SYSTEM, "--set", image)
    kubectl("cordon", other)  # servers without disks are kept off the node that will be drained
    install_environment()
    took_s = shop.wait("the OrderService is Ready", shop.ready)
    kubectl("uncordon", other)
    figure("`helm install` of both charts until the OrderService is Ready", f"{took_s:.0f} s")


def test_an_order_placed_through_the_service_is_completed(shop: Shop, figure: Figure) -> None:
    order = shop.place()
    shop.wait("the order is Completed", lambda: shop.status(order) == "Completed", 120)
    figure("an order placed through the Service ends Completed", "yes")


def test_the_chart_tests_itself(helm: Helm, figure: Figure) -> None:
    helm("test", RELEASE, "--namespace", NAMESPACE, "--timeout=4m")
    figure("`helm test`", "passes")


def test_pods_reach_what_they_are_meant_to_and_nothing_else(
    running: Cluster, kubectl: Kubectl, figure: Figure
) -> None:
    if not running.heeds_policies:
        pytest.skip("the network of our own nodes enforces no policies")
    reach = partial(endpoints.reachable, kubectl)
    reach_by_process = {
        process: reach(NAMESPACE, f"deploy/{RELEASE}-{process}") for process in PROCESSES
    }
    assert reach_by_process == endpoints.ALLOWED
    image = "--image=localhost/orderservice:dev"
    kubectl("run", "stranger", image, "--restart=Never", "--command", "--", "sleep", "600")
    try:
        kubectl("wait", "pod/stranger", "--for=condition=Ready", "--timeout=1m")
        assert reach("default", "stranger", search=NAMESPACE) == endpoints.ALLOWED_TO_STRANGERS
    finally:
        kubectl("delete", "pod", "stranger", "--now")
    tried = (len(PROCESSES) + 1) * len(endpoints.ENDPOINTS)
    figure("connections of the four processes and a stranger", f"{tried} tried, all as meant")


def test_the_load_tests_jobs_pass_the_smoke_scenario(
    shop: Shop, install_environment: Install, figure: Figure
) -> None:
    image = "loadTest.image=localhost/orderservice-loadtest:dev"
    small = "loadTest.resources.requests.cpu=50m"  # the nodes have two CPUs for everything
    install_environment("loadTest.enabled=true", image, small)
    summary = wait_for_load_test(shop)
    figure("Locust's smoke scenario by the chart's Jobs, master and worker", summary)


def test_a_rolling_update_under_load_loses_nothing(
    shop: Shop, install_environment: Install, figure: Figure
) -> None:
    pods_before = shop.pod_names(*PROCESSES)
    with Customers(shop.target_of_load) as customers:
        shop.wait("customers are buying", lambda: customers.accepted > 10)
        install_environment("spec.observability.logLevel=warning")
        took_s = shop.wait(
            "every pod has been replaced",
            partial(shop.replaced, pods_before, *PROCESSES),
        )
    summary = f"{took_s:.0f} s, {check_books(customers)}"
    figure("rolling update of all four processes under load", summary)


def test_killed_pods_lose_nothing(shop: Shop, figure: Figure) -> None:
    with Customers(shop.target_of_load) as customers:
        for process in PROCESSES:
            (victim, *_) = shop.pod_names(process)
            shop.kill(victim)
            shop.wait(f"another {process} is ready", partial(shop.replaced, {victim}, process))
    figure("one pod of each process killed under load, without grace", check_books(customers))


def test_a_drained_node_loses_nothing(shop: Shop, kubectl: Kubectl, figure: Figure) -> None:
    home, other = shop.schedulable()
    with Customers(shop.target_of_load) as customers:
        kubectl("cordon", home)
        for process in PROCESSES:
            for victim in shop.pod_names(process):
                shop.wait(f"{victim} may go", partial(shop.evict, victim))
            shop.wait(f"{process} is on {other}", partial(shop.settled, {other}, process))
        kubectl("uncordon", home)
        kubectl("drain", other, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=4m")
        took_s = shop.wait(f"all are on {home}", partial(shop.settled, {home}, *PROCESSES))
    kubectl("uncordon", other)
    figure(
        "every pod of the four processes evicted, then `kubectl drain` of the node they went to",
        f"ready again {took_s:.0f} s after it; {check_books(customers)}",
    )


def test_a_busy_api_gets_more_pods_and_an_idle_one_fewer(shop: Shop, figure: Figure) -> None:
    with Customers(shop.target_of_load, count=24, pause_s=0) as customers:
        up_s = shop.wait("there are more api pods", lambda: shop.replicas("api") > 1)
    check_books(customers)
    down_s = shop.wait("there is one api pod again", lambda: shop.replicas("api") == 1)
    figure("CPU autoscaler: api 1 → more under load", f"{up_s:.0f} s")
    figure("CPU autoscaler: back to 1 without load", f"{down_s:.0f} s")


def test_a_long_queue_gets_more_workers_and_an_empty_one_fewer(shop: Shop, figure: Figure) -> None:
    shop.faults("payment", latencyMs=4000)
    try:
        with Customers(shop.target_of_load, count=16, pause_s=0) as customers:
            up_s = shop.wait("there are more workers", lambda: shop.replicas("worker") > 1)
    finally:
        shop.faults("payment")
    check_books(customers)
    down_s = shop.wait("there is one worker again", lambda: shop.replicas("worker") == 1)
    figure("queue autoscaler: worker 1 → more under a slow payment", f"{up_s:.0f} s")
    figure("queue autoscaler: back to 1 once the queue is empty", f"{down_s:.0f} s")


def test_every_command_of_the_runbook_does_its_work(
    shop: Shop, running: Cluster, kubectl: Kubectl, figure: Figure
) -> None:
    shop.wait("there is one worker", lambda: len(shop.pods("worker")) == 1 and shop.rolled_out())
    (worker,) = shop.pod_names("worker")
    end = "import os, signal; os.kill(1, signal.SIGTERM)"
    kubectl("--namespace", NAMESPACE, "exec", worker, "--", "python", "-c", end)
    shop.wait("the worker is there again", lambda: shop.restarts(worker) and shop.rolled_out())
    restarted = shop.pod_names("relay", "worker", "notifier")
    filled_in = {
        "pod": worker,
        "container": "worker",
        "id": shop.place().rsplit("/", 1)[1],
        "32 hex digits": "0" * 32,
        "more": "2",
        "the last good one": "localhost/orderservice:dev",
        "resource_namespace": NAMESPACE,
        "resource": RELEASE,
    }
    commands = runbook.commands()
    assert len(commands) > 30
    tool = required.tool("kubectl")
    outputs = [runbook.typed(command, filled_in, tool, running.kubeconfig) for command in commands]
    failures = [output for output in outputs if output]
    assert not failures, "\n".join(failures)
    shop.wait("what was restarted is new", partial(shop.replaced, restarted, *PROCESSES))
    figure("commands of the runbook typed", f"{len(commands)}, all did their work")


def test_a_private_authority_verifies_every_connection_of_an_environment(
    shop: Shop,
    helm: Helm,
    install_environment: Install,
    kubectl: Kubectl,
    figure: Figure,
    tmp_path: Path,
) -> None:
    """The second environment: its processes end at once where a server would not be verified."""
    namespace(shop, private.NAMESPACE)
    shop.api.apply(private.certificate(tmp_path), private.NAMESPACE)
    values = ("--values", str(private.VALUES))
    install = partial(install_environment, namespace=private.NAMESPACE, options=values)
    install()
    verified = Shop(shop.api, private.NAMESPACE)
    took_s = verified.wait("the OrderService is Ready", verified.ready)
    helm("test", RELEASE, "--namespace", private.NAMESPACE, "--timeout=4m")
    install("loadTest.enabled=true")
    load = wait_for_load_test(verified)
    reach = partial(private.answered_in_clear, kubectl)
    assert reach(NAMESPACE) == private.PLAIN
    assert reach(private.NAMESPACE) == set()
    helm("uninstall", RELEASE, "--namespace", private.NAMESPACE, "--wait", "--timeout=5m")
    kubectl("delete", "namespace", private.NAMESPACE)
    figure(
        "an environment with a private CA, `ORDERS_TLS_UNVERIFIED` none",
        f"Ready after {took_s:.0f} s; `helm test` passes; {load}; no port answers in clear",
    )


def test_uninstalling_leaves_nothing(shop: Shop, helm: Helm, figure: Figure) -> None:
    helm("uninstall", RELEASE, "--namespace", NAMESPACE, "--wait", "--timeout=5m")
    helm("uninstall", OPERATOR_RELEASE, "--namespace", SYSTEM, "--wait", "--timeout=5m")
    try:
        took_s = shop.wait("nothing is left", lambda: not shop.leftovers(), 180)
    finally:
        assert shop.leftovers() == set()
    figure("uninstall of both charts: nothing left but the definition", f"{took_s:.0f} s")
