"""Settings of the gateway: the GATEWAY_* environment variables, read once."""

import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from gateway.certificate import Pair, Unusable, check

PREFIX = "GATEWAY_"
_ADDRESS = re.compile(r"[A-Za-z0-9.-]+:\d{1,5}|\[[0-9A-Fa-f:]+\]:\d{1,5}")


# In nginx's configuration.
_PATH = re.compile(r"/[A-Za-z0-9._/+@-]+")
_SINGLE: Final = (
    "port", "admin_port", "tls_certificate_file", "tls_key_file", "memory_mib", "api_in_flight",
    "drain_s",
)  # fmt: skip


class SettingError(ValueError):
    """Correct the environment variable that the message names, then start again."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """A field `x` is read from `GATEWAY_X`; lists are separated by commas."""

    port: Annotated[int, Meta(ge=1, le=65535, description="Port to listen on.")] = 8080
    admin_port: Annotated[
        int, Meta(ge=1, le=65535, description="Port of /livez, /readyz and /metrics.")
    ] = 8086
    tls_certificate_file: Annotated[
        str | None,
        Meta(description="Certificate with its chain (PEM): the port speaks TLS, and only that."),
    ] = None
    tls_key_file: Annotated[
        str | None, Meta(description="Key of that certificate, without a passphrase.")
    ] = None
    api_address: Annotated[
        tuple[str, ...], Meta(min_length=1, description="address:port of the api, or several.")
    ] = ("127.0.0.1:8000",)
    trusted_proxies: Annotated[
        tuple[str, ...],
        Meta(description="Networks (CIDR) of proxies whose X-Forwarded-For is believed."),
    ] = ()
    memory_mib: Annotated[
        Annotated[int, Meta(ge=64, le=65_536)] | None,
        Meta(description="MiB of memory; unset: the container's limit, or 128."),
    ] = None
    # Enough to keep the default four processes of an api busy, and about 100 ms of waiting.
    api_in_flight: Annotated[
        int, Meta(ge=1, le=10_000, description="Requests that one api has at once; beyond: 503.")
    ] = 64
    # A request takes 30 s at most, but almost none takes one; a pod's end waits for this.
    drain_s: Annotated[
        int, Meta(ge=1, le=600, description="Seconds for requests under way after SIGTERM.")
    ] = 10

    @property
    def tls(self) -> Pair | None:
        """The files of the certificate and its key; None: no TLS."""
        if self.tls_certificate_file is None or self.tls_key_file is None:
            return None
        return Pair(Path(self.tls_certificate_file), Path(self.tls_key_file))


def load(environ: Mapping[str, str]) -> Settings:
    """Read the settings; an empty variable counts as unset.

    Raises SettingError naming the variable and what is wrong with it.
    """
    values: dict[str, str | tuple[str, ...]] = {}
    for field in _SINGLE:
        if value := environ.get(PREFIX + field.upper(), "").strip():
            values[field] = value
    for field in ("api_address", "trusted_proxies"):
        value = environ.get(PREFIX + field.upper(), "")
        if entries := tuple(entry.strip() for entry in value.split(",") if entry.strip()):
            values[field] = entries
    try:
        settings = msgspec.convert(values, Settings, strict=False)
    except msgspec.ValidationError as error:
        text, _, field_name = str(error).partition(" - at `$.")
        raise SettingError(f"{PREFIX}{field_name.rstrip('`').upper()} is wrong: {text}") from error
    _check(settings)
    return settings


def _check(settings: Settings) -> None:
    """Refuse what nginx would misread: these values become part of its configuration."""
    for address in settings.api_address:
        if not _ADDRESS.fullmatch(address):
            raise SettingError(f"{PREFIX}API_ADDRESS is wrong: {address!r} is not address:port")
    for network in settings.trusted_proxies:
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            raise SettingError(f"{PREFIX}TRUSTED_PROXIES is wrong: {error}") from error

    _check_certificate(settings)


def _check_certificate(settings: Settings) -> None:
    files = {
        f"{PREFIX}TLS_CERTIFICATE_FILE": settings.tls_certificate_file,
        f"{PREFIX}TLS_KEY_FILE": settings.tls_key_file,
    }
    for name, path in files.items():
        if path is None and settings.tls is None and any(files.values()):
            raise SettingError(f"{name} is not set: a certificate needs its key, and a key its own")
        if path is not None and not _PATH.fullmatch(path):
            raise SettingError(
                f"{name} is wrong: expected an absolute path of A-Z a-z 0-9 . _ + @ -"
            )
    if settings.tls is not None:
        try:
            check(settings.tls)
        except Unusable as error:
            raise SettingError(f"{PREFIX}TLS_CERTIFICATE_FILE is wrong: {error}") from None


def describe() -> str:
    """Return one line per variable, for `--help`."""
    lines = []
    for field in msgspec.inspect.type_info(Settings).fields:  # type: ignore[attr-defined] # a Struct's info has fields
        default = ",".join(field.default) if isinstance(field.default, tuple) else field.default
        text = field.type.extra_json_schema["description"]
        lines.append(f"  {PREFIX}{field.name.upper():<21}{text} [{default}]")
    return "\n".join(lines)
