"""The service's statements as pgbench gets them."""

import re

import pytest

from loadtest.bench import statements


@pytest.mark.parametrize(
    "script",
    [
        statements.accept_order(),
        statements.accept_order(with_key=True),
        statements.list_orders(),
        statements.list_deep(),
        statements.find_order(),
        statements.bring_to_end(),
    ],
)
def test_every_name_has_a_value_and_every_variable_is_known(script: str) -> None:
    assert "%(" not in script
    text = re.sub(r"--.*", "", script)
    variables = set(re.findall(r"(?<!:):([a-z_]+)", text))
    computed = set(re.findall(r"\\set (\w+)", script))
    predefined = {"first", "last", "clients", "taken", "client_id"} | set(statements.CONSTANTS)
    if "\\gset" in script:
        predefined |= {"created_at", "id"}
    assert variables <= computed | predefined


def test_the_worker_takes_every_step_of_an_order() -> None:
    script = statements.bring_to_end()
    assert [script.index(f"'{to}'") for to in ("Reserved", "Charging", "Completed")]
    assert script.count(";\n") == 5, "load, three steps, settle: each a round trip"
