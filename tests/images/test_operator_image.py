"""The operator's image, run as in a pod."""

from collections.abc import Callable

from images import workshop
from images.containers import run


def test_a_wrong_setting_ends_it_with_2_and_a_reason(operator_image: str) -> None:
    process = run(operator_image, "orderservice-operator", environ={"OPERATOR_WORKERS": "0"})
    assert process.returncode == 2, process.stderr
    assert "OPERATOR_" in process.stderr


def test_it_holds_neither_the_service_nor_tools(operator_image: str) -> None:
    script = "import importlib.util as u, sys; print([n for n in sys.argv[1:] if u.find_spec(n)])"
    absent = ("orders", "upstreams", "gateway", "devstack", "pip", "uv", "psycopg", "falcon")
    assert run(operator_image, "python3", "-c", script, *absent).stdout.strip() == "[]"


def test_it_brings_the_definition_of_its_resource(operator_image: str) -> None:
    script = """
from importlib.resources import files
package = files("orderservice_operator")
print([package.joinpath(name).is_file() for name in ("crd/orderservices.yaml", "rbac/role.yaml")])
"""
    assert run(operator_image, "python3", "-c", script).stdout.strip() == "[True, True]"


def test_its_size_is_known(operator_image: str, figure: Callable[[str, float], None]) -> None:
    size_bytes = workshop.size_bytes(operator_image)
    own = size_bytes - workshop.size_bytes(workshop.base(workshop.RUN_BASE))
    figure("orderservice-operator, MB", size_bytes / 1e6)
    figure("orderservice-operator above its base, MB", own / 1e6)
    assert own < 80e6
