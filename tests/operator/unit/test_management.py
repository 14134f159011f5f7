"""Secrets and answers that are wrong become a condition."""

import asyncio
import base64
import datetime as dt
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from orderservice_operator.children.manifest import Manifest
from orderservice_operator.cluster.secrets import Secret
from orderservice_operator.errors import Permanent
from orderservice_operator.external_metrics import certificates
from orderservice_operator.rabbitmq import credentials
from orderservice_operator.rabbitmq.management import Address, Management
from orderservice_operator.rabbitmq.reconciler import TopologyReconciler
from orderservice_operator.resource.key import Key
from orderservice_operator.state.topology_report import TopologyReport

KEY = Key("shop", "minimal")
PRIVATE = "what only the operator may see"
FOREIGN = "not RabbitMQ's management API"


def _answered(
    status: int, body: str | bytes, ask: Callable[[str], Awaitable[Any]], path: str = ""
) -> None:
    """Call a server that gives every request the same answer."""

    async def answer(_request: web.Request) -> web.Response:
        octets = body.encode() if isinstance(body, str) else body
        return web.Response(status=status, body=octets, content_type="application/json")

    async def main() -> None:
        server = web.Application()
        server.router.add_route("*", "/{any:.*}", answer)
        runner = web.AppRunner(server)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            await ask(f"http://127.0.0.1:{runner.addresses[0][1]}{path}")
        finally:
            await runner.cleanup()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (200, f"<p>{PRIVATE}", FOREIGN),
        (200, f'{{"items": "{PRIVATE}"}}', FOREIGN),
        (200, f'[{{"other": "{PRIVATE}"}}]', FOREIGN),
        (200, "[" * 100_000, FOREIGN),
        (200, b'[{"name": "\xff"}]', FOREIGN),
        (400, "[" * 100_000, ": 400$"),
        (400, b'{"reason": "\xff"}', ": 400$"),
        (404, f"404 {PRIVATE}", ": 404$"),
        (400, f'{{"error": {{"root_cause": "{PRIVATE}"}}}}', ": 400$"),
        (400, '{"error": "bad_request", "reason": "no such vhost"}', ": 400: no such vhost$"),
    ],
)
def test_an_answer_is_told_by_its_status_or_by_rabbitmqs_own_reason(
    status: int, body: str | bytes, message: str
) -> None:
    async def look(url: str) -> None:
        async with aiohttp.ClientSession() as session:
            management = Management(session, Address(url, "a", "b", "/"))
            await management.cluster() if status == 404 else None
            await management.read()

    with pytest.raises(Permanent, match=message) as raised:
        _answered(status, body, look)
    assert PRIVATE not in str(raised.value)


@pytest.mark.parametrize("host", ["a..b", "a" * 64])
def test_a_host_that_no_resolver_takes_is_refused(host: str) -> None:
    async def look() -> None:
        async with aiohttp.ClientSession() as session:
            await Management(session, Address(f"http://{host}:1", "a", "b", "/")).read()

    with pytest.raises(Permanent, match="managementUrl"):
        asyncio.run(look())


class Server:
    """The part of a client that is used: it returns one Secret for any name."""

    def __init__(self, **entries: bytes) -> None:
        self.data = {key: base64.b64encode(value).decode() for key, value in entries.items()}
        self.type, self.labels, self.reads = "Opaque", dict[str, str](), 0

    async def get(self, _path: str) -> Manifest:
        self.reads += 1
        return {"data": dict(self.data), "type": self.type, "metadata": {"labels": self.labels}}


def _reports(server: Server, service: Any, looks: int = 1) -> tuple[TopologyReport, bool]:
    """Return what is reported, and whether the broker's breaker still lets others call."""

    async def main() -> tuple[TopologyReport, bool]:
        topologies = TopologyReconciler(server, lambda _: None, list)  # type: ignore[arg-type] # all that is used
        for _ in range(looks):
            await topologies.reconcile(KEY, service)
        report, breaker = topologies.report(KEY, service), topologies.breaker(service)
        await topologies.close()
        with breaker.calling():
            return report, True

    return asyncio.run(main())


SECRET = "p4ss"
BAD_ENTRIES = {
    "brackets": f"amqp://user:{SECRET}[@host/".encode(),
    "NFKC": f"amqp://user:{SECRET}\u2100@host/".encode(),
    "colon": f"amqp://us%3Aer:{SECRET}@host/".encode(),
    "binary": b"amqp://\xff" + SECRET.encode(),
}


@pytest.mark.parametrize("url", BAD_ENTRIES.values(), ids=BAD_ENTRIES)
def test_a_bad_secret_is_a_condition_that_quotes_nothing_and_closes_the_broker_to_nobody(
    make: Any, url: bytes
) -> None:
    service = make(messaging={"managementUrl": "http://127.0.0.1:9"})
    report, open_ = _reports(Server(url=url), service, looks=4)
    assert (report.reason, open_) == ("Refused", True)
    assert SECRET not in report.message


def test_a_binary_entry_beside_the_one_that_is_read_does_not_matter(make: Any) -> None:
    service = make(messaging={"managementUrl": "http://127.0.0.1:9"})
    report, _ = _reports(Server(url=b"amqp://a:b@127.0.0.1:9/", keystore=b"\xff\xfe"), service)
    assert report.reason == "Unreachable"


def test_a_path_that_is_not_the_brokers_closes_it_to_nobody(make: Any) -> None:
    server = Server(url=b"amqp://a:b@127.0.0.1/")

    async def keep(url: str) -> None:
        service = make(messaging={"managementUrl": url})
        topologies = TopologyReconciler(server, lambda _: None, list)  # type: ignore[arg-type] # as above
        for _ in range(4):
            await topologies.reconcile(KEY, service)
        assert topologies.report(KEY, service).reason == "Refused"
        with topologies.breaker(service).calling():
            pass
        await topologies.close()

    _answered(404, "404 page not found", keep, path="/wrong")


def test_a_refused_secret_is_read_anew_by_the_next_try(make: Any) -> None:
    server = Server(url=b"amqp://a:b@127.0.0.1/")

    async def reconcile(url: str) -> None:
        service = make(messaging={"managementUrl": url})
        topologies = TopologyReconciler(server, lambda _: None, list)  # type: ignore[arg-type] # as above
        for _ in range(3):
            await topologies.reconcile(KEY, service)
        assert topologies.report(KEY, service).reason == "Refused"
        await topologies.close()

    _answered(401, "no", reconcile)
    assert server.reads == 3


AMQP = b"amqp://user:p4ss@rabbitmq.shop.svc/"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("https://elsewhere.example", "another host"),
        ("http://elsewhere", "another host"),
        ("http://elsewhere.example", "unencrypted"),
        ("http://8.8.8.8", "unencrypted"),
    ],
)
def test_the_password_of_a_url_goes_to_its_own_host_only(make: Any, url: str, message: str) -> None:
    report, _ = _reports(Server(url=AMQP), make(messaging={"managementUrl": url}))
    assert report.reason == "Refused"
    assert message in report.message
    assert "p4ss" not in report.message


def _user(make: Any, url: str, server: Server, **messaging: Any) -> tuple[str, str]:
    service = make(messaging={"managementUrl": url, **messaging})
    secret = Secret("any", server.type, server.labels, server.data)
    return credentials.user(service, secret)


def test_what_a_secret_says_it_is_for_is_sent(make: Any) -> None:
    server = Server(url=AMQP, username=b"least", password=b"x")
    assert _user(make, "http://rabbitmq.shop.svc:15672", server) == ("user", "p4ss")
    reference = {"managementSecretRef": {"name": "any"}}
    with pytest.raises(Permanent, match="type kubernetes"):
        _user(make, "https://elsewhere.example", server, **reference)

    server.labels = {credentials.LABEL: "true"}
    assert _user(make, "https://elsewhere.example", server) == ("user", "p4ss")
    assert _user(make, "https://elsewhere.example", server, **reference) == ("least", "x")
    server.labels, server.type = {}, credentials.BASIC_AUTH
    assert _user(make, "https://elsewhere.example", server, **reference) == ("least", "x")


def _bundled(make: Any, tmp_path: Path, *texts: bytes, bundle: bool = True) -> list[str]:
    """Return what is reported of a broker behind an authority, for each text of the bundle.

    `{}` in a text stands for that authority.
    """
    pair = certificates.issue(("localhost",), dt.datetime.now(dt.UTC))
    chain = tmp_path / "server.pem"
    chain.write_text(pair.certificate + pair.key)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(chain)
    server = Server(url=b"amqp://a:b@localhost/")  # one Secret has both
    trusted = {"caBundleSecretRef": {"name": "authorities"}} if bundle else {}

    async def main() -> list[str]:
        async def answer(request: web.Request) -> web.Response:
            return web.json_response([] if request.method == "GET" else {})

        application = web.Application()
        application.router.add_route("*", "/{any:.*}", answer)
        runner = web.AppRunner(application)
        await runner.setup()
        await web.TCPSite(runner, "localhost", 0, ssl_context=context).start()
        url = f"https://localhost:{runner.addresses[0][1]}"
        service = make(messaging={"managementUrl": url}, mode="Manage", **trusted)
        topologies = TopologyReconciler(server, lambda _: None, list)  # type: ignore[arg-type] # all that is used
        messages: list[str] = []
        try:
            for text in texts:
                content = text.replace(b"{}", pair.authorities.encode())
                server.data["ca.crt"] = base64.b64encode(content).decode()
                await topologies.reconcile(KEY, service)
                messages.append(topologies.report(KEY, service).message)
        finally:
            await topologies.close()
            await runner.cleanup()
        return messages

    return asyncio.run(main())


UNTRUSTED = "the certificate is not trusted"


@pytest.mark.parametrize("text", [b"{}", "# Autorit\u00e9 de l'entreprise\n{}# \u65e5".encode()])
def test_a_broker_behind_a_private_authority_is_trusted_by_the_bundle(
    make: Any, tmp_path: Path, text: bytes
) -> None:
    (message,) = _bundled(make, tmp_path, text)
    assert FOREIGN in message  # what answers is asked


def test_a_broker_behind_a_private_authority_is_not_trusted_without_a_bundle(
    make: Any, tmp_path: Path
) -> None:
    (message,) = _bundled(make, tmp_path, b"{}", bundle=False)
    assert UNTRUSTED in message


def test_a_bundle_that_was_replaced_is_read_once_the_old_one_does_not_help(
    make: Any, tmp_path: Path
) -> None:
    other = certificates.issue(("other",), dt.datetime.now(dt.UTC)).authorities.encode()
    report_before, report_after = _bundled(make, tmp_path, other, b"{}")
    assert UNTRUSTED in report_before
    assert FOREIGN in report_after


@pytest.mark.parametrize(
    "text",
    [
        b"none",
        b"",
        b" \n",
        b"-----BEGIN CERTIFICATE-----\n\n-----END CERTIFICATE-----",
        "-----BEGIN CERTIFICATE-----\n\u00e9\n-----END CERTIFICATE-----".encode(),
    ],
)
def test_a_bundle_without_certificates_is_told(make: Any, text: bytes) -> None:
    server = Server(url=b"amqp://a:b@localhost/", **{"ca.crt": text})
    report, _ = _reports(
        server,
        make(
            messaging={"managementUrl": "https://localhost:1"},
            caBundleSecretRef={"name": "authorities"},
        ),
    )
    assert (report.reason, "no certificates in PEM" in report.message) == ("Refused", True)
