"""The load tests' image, run as in a pod."""

from collections.abc import Callable

from images import workshop
from images.containers import run


def test_it_lists_its_scenarios(loadtest_image: str) -> None:
    process = run(loadtest_image, "python", "-m", "loadtest")
    assert process.returncode == 0, process.stderr
    assert "smoke" in process.stdout
    assert "rolling-deploy" in process.stdout


def test_a_host_that_is_not_allowed_is_not_loaded(loadtest_image: str) -> None:
    process = run(
        loadtest_image, "python", "-m", "loadtest", "smoke", "--host", "http://orders-api"
    )
    assert process.returncode == 3
    assert "LOADTEST_ALLOWED_HOSTS" in process.stderr


def test_locust_starts_without_a_place_to_write(loadtest_image: str) -> None:
    process = run(loadtest_image, "python", "-m", "locust", "--version")
    assert process.returncode == 0, process.stderr
    assert "locust" in process.stdout


def test_it_holds_neither_services_nor_tools(loadtest_image: str) -> None:
    script = "import importlib.util as u, sys; print([n for n in sys.argv[1:] if u.find_spec(n)])"
    # Locust itself wants pytest.
    absent = ("orders", "orderservice_operator", "devstack", "pip", "uv", "fastapi")
    assert run(loadtest_image, "python", "-c", script, *absent).stdout.strip() == "[]"


def test_its_size_is_known(loadtest_image: str, figure: Callable[[str, float], None]) -> None:
    figure("orderservice-loadtest, MB", workshop.size_bytes(loadtest_image) / 1e6)
