"""Log in like kubectl: a context of the kubeconfig, with its files, tokens and exec plug-ins.

kopf reads kubeconfigs too, but only their current context, and runs no exec plug-ins. Source:
https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins
"""

import base64
import os
import shlex
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final, TypeVar

import kopf
import msgspec
from msgspec import Meta

from orderservice_operator.errors import OperatorError
from orderservice_operator.orderctl.manifests import documents as yaml_documents

_DEFAULT: Final = "~/.kube/config"
_PLUGIN_S: Final = 120  # a person may have to log in with a browser
_FILES: Final = ("certificate_authority", "client_certificate", "client_key", "token_file")
_BASE64: Final = (
    "certificate_authority_data", "client_certificate_data", "client_key_data",
)  # fmt: skip


class _Cluster(msgspec.Struct, frozen=True, rename="kebab"):
    server: str = ""
    certificate_authority: str | None = None
    certificate_authority_data: str | None = None
    insecure_skip_tls_verify: bool | None = None
    proxy_url: str | None = None
    tls_server_name: str | None = None


class _Variable(msgspec.Struct, frozen=True):
    name: str
    value: str = ""


class _Plugin(msgspec.Struct, frozen=True, rename="camel"):
    command: str
    args: list[str] | None = None
    env: list[_Variable] | None = None
    api_version: str | None = None
    install_hint: str | None = None


class _KubeconfigUser(msgspec.Struct, frozen=True, rename="kebab"):
    token: str | None = None
    token_file: str | None = msgspec.field(name="tokenFile", default=None)
    username: str | None = None
    password: str | None = None
    client_certificate: str | None = None
    client_certificate_data: str | None = None
    client_key: str | None = None
    client_key_data: str | None = None
    exec: _Plugin | None = None
    expiration: datetime | None = None  # from a plug-in, not a file


class _Context(msgspec.Struct, frozen=True):
    cluster: str = ""
    user: str = ""
    namespace: str | None = None


class _NamedCluster(msgspec.Struct, frozen=True):
    name: str
    cluster: _Cluster | None = None


class _NamedUser(msgspec.Struct, frozen=True):
    name: str
    user: _KubeconfigUser | None = None


class _NamedContext(msgspec.Struct, frozen=True):
    name: str
    context: _Context | None = None


class _File(msgspec.Struct, frozen=True, rename="kebab"):
    clusters: list[_NamedCluster] | None = None
    users: list[_NamedUser] | None = None
    contexts: list[_NamedContext] | None = None
    current_context: str | None = None


class _Status(msgspec.Struct, frozen=True, rename="camel"):
    """The members of an ExecCredential's status that are read."""

    token: str | None = None
    client_certificate_data: str | None = None
    client_key_data: str | None = None
    expiration_timestamp: Annotated[datetime, Meta(tz=True)] | None = None


class _Credential(msgspec.Struct, frozen=True):
    status: _Status


T = TypeVar("T")
S = TypeVar("S", _Cluster, _KubeconfigUser)


class Kubeconfig:
    """One context of one or more files; of two entries with the same name the first counts."""

    def __init__(self, paths: str = "", context: str = "") -> None:
        self._paths, self._context = paths or os.environ.get("KUBECONFIG", ""), context
        self._from_plugin: kopf.ConnectionInfo | None = None

    def __call__(
        self,
        *,
        settings: kopf.OperatorSettings,  # noqa: ARG002 the form of all of kopf's logins
    ) -> kopf.ConnectionInfo | None:
        """Return how to connect, or None where there is no kubeconfig. Raises OperatorError."""
        login = self._from_plugin
        if login and (login.expiration is None or login.expiration > datetime.now(UTC)):
            return login
        files = [_read(path) for path in self._existing()]
        if not files:
            return None
        context = self._chosen(files)
        clusters = [item for file in files for item in file.clusters or ()]
        of_clusters = ((item.name, item.cluster or _Cluster()) for item in clusters)
        cluster = _entry("cluster", of_clusters, context.cluster)
        users = [item for file in files for item in file.users or ()]
        of_users = ((item.name, item.user or _KubeconfigUser()) for item in users)
        user = _entry("user", of_users, context.user) if context.user else _KubeconfigUser()
        answer = _ask(user.exec, user, cluster) if user.exec else user
        connection = _connection(cluster, answer, context)
        self._from_plugin = connection if user.exec else None
        return connection

    def _existing(self) -> Iterator[Path]:
        """Yield the files that exist. Raises OperatorError for a missing file that was named."""
        for text in filter(None, self._paths.split(os.pathsep)):
            path = Path(text).expanduser()
            if not path.exists():
                raise OperatorError(f"kubeconfig {path} does not exist")
            yield path
        default = Path(_DEFAULT).expanduser()
        if not self._paths and default.exists():
            yield default

    def _chosen(self, files: Sequence[_File]) -> _Context:
        name = self._context or next(filter(None, (file.current_context for file in files)), "")
        if not name:
            raise OperatorError(
                "the kubeconfig has no current context: give --context, "
                "or choose one with `kubectl config use-context`"
            )
        contexts = [item for file in files for item in file.contexts or ()]
        return _entry(
            "context", ((item.name, item.context or _Context()) for item in contexts), name
        )


def _read(path: Path) -> _File:
    """Read one file; the paths in it are relative to it."""
    try:
        document = next(iter(yaml_documents(path.read_text(encoding="utf-8"))), None)
        file = msgspec.convert(document or {}, _File)
    except (OSError, UnicodeDecodeError, OperatorError, msgspec.ValidationError) as error:
        raise OperatorError(f"kubeconfig {path} cannot be read: {error}") from error
    return msgspec.structs.replace(
        file,
        clusters=[
            msgspec.structs.replace(
                item, cluster=item.cluster and _with_absolute_paths(item.cluster, path)
            )
            for item in file.clusters or ()
        ],
        users=[
            msgspec.structs.replace(item, user=item.user and _with_absolute_paths(item.user, path))
            for item in file.users or ()
        ],
    )


def _with_absolute_paths(entry: S, path: Path) -> S:
    """Return an entry with paths relative to the working folder; refuse data that is not base64."""
    for name in _BASE64:
        if not _is_base64(getattr(entry, name, None) or ""):
            raise OperatorError(f"kubeconfig {path}: {name.replace('_', '-')} is not base64")
    files = {name: getattr(entry, name, None) for name in _FILES}
    return msgspec.structs.replace(
        entry, **{name: str(path.parent / file) for name, file in files.items() if file}
    )


def _is_base64(text: str) -> bool:
    try:
        base64.b64decode(text).decode("ascii")
    except ValueError:
        return False
    return True


def _entry(kind: str, pairs: Iterable[tuple[str, T]], name: str) -> T:
    entries: dict[str, T] = {}
    for key, entry in pairs:
        entries.setdefault(key, entry)
    if name in entries:
        return entries[name]
    names = ", ".join(sorted(entries)) or "none"
    raise OperatorError(f"the kubeconfig has no {kind} {name!r}; it has: {names}")


def _connection(cluster: _Cluster, user: _KubeconfigUser, context: _Context) -> kopf.ConnectionInfo:
    for name, value in (
        ("proxy-url", cluster.proxy_url), ("tls-server-name", cluster.tls_server_name),
    ):  # fmt: skip
        if value:
            raise OperatorError(f"{name} in a kubeconfig is not supported: use `kubectl proxy`")
    try:
        return kopf.ConnectionInfo(
            server=cluster.server,
            ca_path=cluster.certificate_authority,
            ca_data=cluster.certificate_authority_data,
            insecure=cluster.insecure_skip_tls_verify,
            certificate_path=user.client_certificate,
            certificate_data=user.client_certificate_data,
            private_key_path=user.client_key,
            private_key_data=user.client_key_data,
            username=user.username,
            password=user.password,
            token=user.token or _token(user.token_file),
            default_namespace=context.namespace,
            expiration=user.expiration,
        )
    except ValueError as error:  # both a file and its contents are named
        raise OperatorError(f"the kubeconfig's context cannot be used: {error}") from error


def _token(file: str | None) -> str | None:
    if file is None:
        return None
    try:
        return Path(file).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise OperatorError(f"the kubeconfig's tokenFile cannot be read: {error}") from error


def _ask(plugin: _Plugin, user: _KubeconfigUser, cluster: _Cluster) -> _KubeconfigUser:
    """Run an exec plug-in; return the user with its credentials."""
    command = [plugin.command, *(plugin.args or [])]
    variables = {variable.name: variable.value for variable in plugin.env or []}
    info = {"apiVersion": plugin.api_version, "kind": "ExecCredential"}
    spec = {"cluster": {"server": cluster.server or None}, "interactive": False}
    request = msgspec.json.encode(info | {"spec": spec}).decode()
    environ = {**os.environ, **variables, "KUBERNETES_EXEC_INFO": request}
    answer = _output(command, environ, plugin.install_hint or "")
    try:
        status = msgspec.json.decode(answer, type=_Credential).status
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise OperatorError(f"`{shlex.join(command)}` did not print an ExecCredential") from error
    return _as_user(user, status)


def _as_user(user: _KubeconfigUser, status: _Status) -> _KubeconfigUser:
    members = {
        "token": status.token,
        "client_certificate_data": _encoded(status.client_certificate_data),
        "client_key_data": _encoded(status.client_key_data),
        "expiration": status.expiration_timestamp,
    }
    return msgspec.structs.replace(
        user, **{name: value for name, value in members.items() if value}
    )


def _encoded(pem: str | None) -> str | None:
    """Return PEM as base64: plug-ins return it plain, kubeconfigs and kopf encode it."""
    return base64.b64encode(pem.encode()).decode() if pem else None


def _output(command: list[str], environ: Mapping[str, str], hint: str) -> bytes:
    advice = f"log in first, or try it yourself: `{shlex.join(command)}`. {hint}".strip()
    try:
        process = subprocess.run(  # noqa: S603 the person's own kubeconfig names it
            command, env=environ, stdout=subprocess.PIPE, timeout=_PLUGIN_S, check=False
        )
    except FileNotFoundError as error:
        raise OperatorError(f"{command[0]} is not installed. {hint}".strip()) from error
    except (OSError, ValueError) as error:  # not executable; a NUL in an argument
        raise OperatorError(f"{command[0]} cannot be run: {error}. {hint}".strip()) from error
    except subprocess.TimeoutExpired as error:
        raise OperatorError(f"{command[0]} did not answer: {advice}") from error
    if process.returncode != 0:
        raise OperatorError(f"{command[0]} failed with {process.returncode}: {advice}")
    return process.stdout
