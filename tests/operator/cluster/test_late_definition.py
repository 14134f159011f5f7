"""An operator that is started before its definition is installed works once that is there."""

from collections.abc import Callable
from typing import Any

import requests
import yaml
from conftest import PACKAGE
from control_plane.api import Api, Object
from control_plane.plane import ControlPlane

Example = Callable[..., Object]
DEFINITIONS = ("apiextensions.k8s.io/v1", "customresourcedefinitions", "")
NAME = "orderservices.orders.platform.dev"


def test_it_is_not_ready_and_says_why_until_the_definition_comes(
    api: Api,
    own_plane: ControlPlane,
    namespace: str,
    example: Example,
    start_operator: Callable[..., Any],
) -> None:
    assert own_plane
    api.delete(*DEFINITIONS, NAME)
    api.wait(lambda: not api.exists(*DEFINITIONS, NAME))
    try:
        operator = start_operator("early")
        url = f"http://127.0.0.1:{operator.admin_port}"
        api.wait(lambda: "not installed" in _said(f"{url}/readyz"))
        assert requests.get(f"{url}/livez", timeout=5).ok
    finally:
        api.apply(yaml.safe_load((PACKAGE / "crd" / "orderservices.yaml").read_text()))
        path = f"{api.url}/apis/orders.platform.dev/v1alpha1/orderservices"
        api.wait(lambda: api.session.get(path).ok)
    api.apply(example(), namespace)
    api.wait(lambda: len(api.list("apps/v1", "deployments", namespace)) == 4)
    api.wait(lambda: requests.get(f"{url}/readyz", timeout=5).ok)


def _said(url: str) -> str:
    try:
        return requests.get(url, timeout=5).text
    except requests.ConnectionError:
        return ""
