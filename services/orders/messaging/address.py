"""Addresses of RabbitMQ: one URL, several, or one with several hosts.

`amqp://user:password@a:5672,b:5672,c:5672/vhost` means the same as three URLs separated by commas.
Each connection tries the hosts in random order.
"""

import random
import re
import urllib.parse
from typing import Final

import structlog
from pika import URLParameters

from orders.errors import SettingError
from orders.settings import MessagingSettings

# A broker short of memory or disk stops reading. After this time we try another host.
_BLOCKED_S: Final = 60.0
_EXPECTED: Final = "expected amqp://user:password@host:port/vhost, several hosts by commas"
_SCHEMES: Final = ("amqp", "amqps")
# A password may contain a comma, so split only where another URL begins.
_BETWEEN_URLS: Final = re.compile(r",(?=[A-Za-z][A-Za-z0-9+.-]*://)")
_log = structlog.get_logger()


class BrokerAddress(URLParameters):  # type: ignore[misc] # pika has no types
    """pika's parameters of a connection to one host. Raises as `addresses` does."""

    def __init__(self, url: str, settings: MessagingSettings, name: str) -> None:
        try:
            url_parts = urllib.parse.urlsplit(url)
            if not url_parts.hostname:
                raise _wrong("a host is empty")
            if url_parts.port == 0:
                raise _wrong("a port is 0")
            super().__init__(url)
        except OSError as error:  # those of OpenSSL are of this class, and some a ValueError too
            raise _wrong("a file of its ssl_options cannot be used") from error
        except (ValueError, TypeError, IndexError) as error:
            raise _wrong("a host, a port or a parameter cannot be read") from error
        self._url, self._settings, self._name = url, settings, name
        self.heartbeat = settings.heartbeat_s
        self.blocked_connection_timeout = _BLOCKED_S
        self.client_properties = {"connection_name": name}
        self.socket_timeout = 5
        self.stack_timeout = 10

    def renew(self) -> None:
        """Read certificates and authorities again, for the next connection.

        If they cannot be used (perhaps only one file of a pair was replaced so far), the previous
        ones stay in use.
        """
        if self.ssl_options is None:  # type: ignore[has-type] # as above
            return
        try:
            address = BrokerAddress(self._url, self._settings, self._name)
            self.ssl_options = address.ssl_options  # type: ignore[has-type] # as above
        except SettingError as error:
            _log.warning(
                "amqp.certificate_not_renewed", host=host_and_port(self), reason=str(error)
            )


def addresses(settings: MessagingSettings, name: str) -> list[BrokerAddress]:
    """Return the parameters of a connection to each host, in the order of the setting.

    `name` is the connection's name in the broker. Raises SettingError, which says what is wrong
    without the user and the password.
    """
    urls = [url for text in _BETWEEN_URLS.split(settings.url) for url in _hosts(text)]
    return [BrokerAddress(url, settings, name) for url in urls]


def shuffle_addresses(settings: MessagingSettings, name: str) -> list[BrokerAddress]:
    """Return the addresses in random order, to spread connections over the hosts."""
    candidates = addresses(settings, name)
    random.shuffle(candidates)
    return candidates


def host_and_port(address: URLParameters) -> str:
    """Name an address in logs: host and port."""
    return f"{address.host}:{address.port}"


def _hosts(text: str) -> list[str]:
    """Split a URL into one for each of its hosts."""
    scheme, separator, location = text.partition("://")
    if not separator or scheme.lower() not in _SCHEMES:
        shown_scheme = (
            scheme if re.fullmatch(r"[A-Za-z0-9+.-]{1,20}", scheme) and separator else "none"
        )
        raise _wrong(f"its scheme is {shown_scheme}, not one of {', '.join(_SCHEMES)}")
    end = next((index for index, c in enumerate(location) if c in "/?#"), len(location))
    credentials, at_sign, hosts = location[:end].rpartition("@")
    return [f"{scheme}://{credentials}{at_sign}{host}{location[end:]}" for host in hosts.split(",")]


def _wrong(fault: str) -> SettingError:
    return SettingError(f"ORDERS_AMQP_URL is wrong: {fault} ({_EXPECTED})")
