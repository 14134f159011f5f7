"""Settings of a simulator: the UPSTREAMS_* environment variables, read once."""

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

PREFIX = "UPSTREAMS_"


class SettingError(ValueError):
    """Correct the environment variable that the message names, then start again."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """A field `x` is read from `UPSTREAMS_X`."""

    port: Annotated[int, Meta(ge=1, le=65535, description="Port to listen on.")]
    host: Annotated[str, Meta(min_length=1, description="Address to listen on.")] = "127.0.0.1"
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Meta(description="Least severe level written; info writes a line per request."),
    ] = "info"
    # A thread waits out each injected latency: rate x latency of them are needed at a time.
    threads: Annotated[
        int, Meta(ge=64, le=4096, description="Requests worked on at once, waiting ones included.")
    ] = 512
    webhook_secret: Annotated[
        str, Meta(description="Secrets of signatures, `whsec_` + base64, by space (webhooks only).")
    ] = ""
    tokens: Annotated[
        str,
        Meta(description="Bearer tokens that are accepted, by space; unset: every request is."),
    ] = ""
    certificate_file: Annotated[
        str, Meta(description="Certificate with its chain (PEM): the port speaks HTTPS only.")
    ] = ""
    key_file: Annotated[str, Meta(description="Key of the certificate (PEM).")] = ""
    webhook_tolerance_s: Annotated[
        int, Meta(ge=1, le=86_400, description="Largest age of a webhook's timestamp.")
    ] = 300


def load(environ: Mapping[str, str], *, default_port: int) -> Settings:
    """Read the settings; an empty variable counts as unset.

    Raises SettingError naming the variable and what is wrong with it.
    """
    values: dict[str, str | int] = {"port": default_port}
    for field in Settings.__struct_fields__:
        value = environ.get(f"{PREFIX}{field.upper()}", "").strip()
        if value:
            values[field] = value
    try:
        settings = msgspec.convert(values, Settings, strict=False)
    except msgspec.ValidationError as error:
        text, _, field_name = str(error).partition(" - at `$.")
        reason = f"{text[:1].lower()}{text[1:]}"
        raise SettingError(
            f"{PREFIX}{field_name.rstrip('`').upper()} is wrong: {reason}"
        ) from error
    if bool(settings.certificate_file) != bool(settings.key_file):
        raise SettingError(f"{PREFIX}CERTIFICATE_FILE and {PREFIX}KEY_FILE: set both, or neither")
    return settings


def describe() -> str:
    """Return one line per variable, for `--help`."""
    lines = []
    for field in msgspec.inspect.type_info(Settings).fields:  # type: ignore[attr-defined] # a Struct's info has fields
        default = "" if field.required else f" [{field.default}]"
        text = field.type.extra_json_schema["description"]
        lines.append(f"  {PREFIX}{field.name.upper():<22}{text}{default}")
    return "\n".join(lines)
