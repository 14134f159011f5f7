"""Files for `orderctl` with any contents are read, or refused with a message."""

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import kopf
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orderservice_operator.errors import OperatorError
from orderservice_operator.orderctl import manifests
from orderservice_operator.orderctl.kubeconfig import Kubeconfig

Login = Callable[[str], kopf.ConnectionInfo | None]

ODD = st.sampled_from(
    [None, "", "t", 7, True, [], {}, ["t"], {"t": "t"}, "\0", "====", "bm8=", "/nowhere", "\ud800"]
)


def mapping(**members: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Draw a mapping of which each member is as it should be, odd, or missing."""
    names = {name.replace("_", "-"): member | ODD for name, member in members.items()}
    return st.fixed_dictionaries({}, optional=names)


def listing(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(inner | ODD, min_size=1, max_size=2)


T = st.just("t")
# A command that is there would be run.
COMMAND = st.sampled_from(["/nowhere", "/", "\0", "", "/etc/passwd"])
KUBECONFIG = mapping(
    clusters=listing(
        mapping(
            name=T,
            cluster=mapping(
                server=st.just("https://t"),
                certificate_authority=T,
                certificate_authority_data=T,
                insecure_skip_tls_verify=st.booleans(),
            ),
        )
    ),
    users=listing(
        mapping(
            name=T,
            user=mapping(
                token=T, tokenFile=T, username=T, password=T,
                client_certificate=T, client_certificate_data=T, client_key_data=T,
                exec=st.fixed_dictionaries(
                    {"command": COMMAND},
                    optional={"args": listing(T), "env": listing(mapping(name=T, value=T))},
                ),
            ),
        )
    ),
    contexts=listing(mapping(name=T, context=mapping(cluster=T, user=T, namespace=T))),
    current_context=T,
)  # fmt: skip
YAML = st.lists(
    st.sampled_from(
        [
            "clusters", "users", "name", "t", "kind", "OrderService", "metadata", "items", "List",
            ": ", ":", "- ", "\n", "  ", "{", "}", "[", "]", '"', "&a ", "*a", "!!int ", "!!float ",
            "!!timestamp ", "!!bool ", "!!set ", "!!binary ", "!!python/object:t ", "2024-13-45",
            "_", "---\n", "<<: ", "? ", "%YAML 9.9\n", '"\\ud800"', "0x", "1e400", ".nan", "\t",
        ]
    ),
    max_size=12,
).map("".join)  # fmt: skip


@pytest.fixture
def login(tmp_path: Path) -> Login:
    file = tmp_path / "config"

    def log_in(text: str) -> kopf.ConnectionInfo | None:
        file.write_text(text, encoding="utf-8")
        return Kubeconfig(str(file))(settings=kopf.OperatorSettings())

    return log_in


FILE_IS_REWRITTEN = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@given(content=KUBECONFIG)
@FILE_IS_REWRITTEN
def test_a_kubeconfig_of_any_shape_logs_in_or_is_refused(login: Login, content: Any) -> None:
    with suppress(OperatorError):
        connection = login(json.dumps(content))
        assert connection is not None
        assert isinstance(connection.server, str)
        connection.as_http_headers()


@given(text=YAML)
@FILE_IS_REWRITTEN
def test_a_kubeconfig_of_any_text_is_refused(login: Login, text: str) -> None:
    with pytest.raises(OperatorError):
        login(text)


@pytest.mark.parametrize(
    "text",
    [
        "[]", "t", "users: 7", "users: [t]", "users: [{name: [t]}]", "{a: 2024-13-45}", "[" * 2000,
        "!!int _", "!!timestamp t", "current-context: [t]", "contexts: [{name: t, context: t}]",
        "clusters: [{name: t, cluster: {certificate-authority: [t]}}]",
        "clusters: [{name: t, cluster: {certificate-authority-data: '='}}]",
    ],
)  # fmt: skip
def test_what_is_no_kubeconfig_is_named(login: Login, text: str) -> None:
    with pytest.raises(OperatorError, match="kubeconfig"):
        login(text)


WHOLE = """\
clusters: [{name: t, cluster: {server: "https://t", certificate-authority: ca.pem}}]
users: [{name: t, user: %s}, {name: t, user: {token: second}}]
contexts: [{name: t, context: {cluster: t, user: t, namespace: shop}}]
current-context: t
extensions: {some: [thing]}
"""


def test_a_kubeconfig_is_read_as_before(login: Login, tmp_path: Path) -> None:
    connection = login(WHOLE % "{token: first, client-key: k.pem, auth-provider: {name: x}}")
    assert connection is not None
    assert (connection.server, connection.token) == ("https://t", "first")
    assert connection.ca_path == str(tmp_path / "ca.pem")
    assert connection.private_key_path == str(tmp_path / "k.pem")
    assert connection.default_namespace == "shop"


@pytest.mark.parametrize(
    ("user", "message"),
    [
        ("{tokenFile: nowhere}", "tokenFile cannot be read"),
        ("{exec: {command: /}}", "/ cannot be run"),
        ('{exec: {command: "/nowhere", args: ["\\0"]}}', "/nowhere cannot be run"),
        ("{exec: {args: [t]}}", "command"),
        (
            '{exec: {command: echo, args: [\'{"status": {"token": 7}}\']}}',
            "did not print an ExecCredential",
        ),
        ("{exec: {command: echo, args: ['[']}}", "did not print an ExecCredential"),
        (
            "{exec: {command: echo, args: ['"
            + json.dumps({"status": {"expirationTimestamp": "2024-01-01T00:00:00"}})
            + "']}}",
            "did not print an ExecCredential",
        ),
        ("{client-key: k, client-key-data: a2V5}", "private key"),
    ],
)
def test_a_user_who_cannot_log_in_is_told_why(login: Login, user: str, message: str) -> None:
    with pytest.raises(OperatorError, match=message):
        login(WHOLE % user)


@given(text=YAML)
@settings(max_examples=60, deadline=None)
def test_manifests_of_any_text_are_read_or_refused(text: str) -> None:
    with suppress(OperatorError):
        services, _ = manifests.read(text)
        assert all(isinstance(service["metadata"]["name"], str) for service in services)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 2000, "{a: 2024-13-45}", "!!int _", "kind: OrderService\nmetadata: [t]",
        "kind: OrderService\nmetadata: {name: 7}", 'a: "\\ud800"',
        "kind: List\napiVersion: v1\nitems: 7",
        "kind: OrderServiceList\nitems: [7]", "kind: OrderServiceList\nitems: {a: b}",
    ],
)  # fmt: skip
def test_what_is_no_manifest_is_refused(text: str) -> None:
    with pytest.raises(OperatorError):
        manifests.read(text)
