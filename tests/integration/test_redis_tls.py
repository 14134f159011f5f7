"""TLS to Redis behind Sentinels and as a cluster; it is Debian's, the embedded one has no TLS.

The processes log in as the users of `docs/least-privilege.md`.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import redis
from redis.crc import REDIS_CLUSTER_HASH_SLOTS

from devstack.certificates import Authority, ServerTls
from devstack.component import Component
from devstack.packages import secured
from devstack.ports import free_port
from devstack.program import Program
from devstack.servers import valkey
from integration.serving import eventually
from orders import verified
from orders.api.ratelimit import RateLimiter
from orders.cache.client import Redis, RedisDown
from orders.cache.orders import CachedOrder, OrderCache, encode
from orders.settings import CacheSettings, RateLimitSettings

SERVICE = "orders"
ORDER = CachedOrder(1, 7, 1, terminal=True, body=b"{}")


ADMIN = "admin"


class Access(valkey.Access):
    """The users of the processes, as a cluster needs them, and an administrator."""

    @property
    def rules(self) -> str:
        lines = super().rules.splitlines()
        users = (f"{line} +cluster|slots +asking\n" for line in lines)
        return "".join((*users, f"user {ADMIN} on >{self.password} ~* &* +@all\n"))


ACCESS = Access("only-for-tests", "orders:")
LOGIN = f"{valkey.LOGIN_PREFIX}api:{ACCESS.password_of('api')}"


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> ServerTls:
    authority = Authority(tmp_path_factory.mktemp("authority"))
    return ServerTls(authority.bundle, authority.server())


@pytest.fixture
def sentinel(tmp_path: Path, tls: ServerTls) -> Iterator[str]:
    """Start a primary and a Sentinel; give the URL without the query."""
    primary, port = free_port(), free_port()
    programs = [
        Program(valkey.component(tmp_path, primary, access=ACCESS, tls=tls)),
        Program(_sentinel(tmp_path, port, primary, tls)),
    ]
    for program in programs:
        program.start()
    yield f"rediss+sentinel://{LOGIN}@127.0.0.1:{port}/{SERVICE}"
    for program in programs:
        program.kill()


def _sentinel(state: Path, port: int, primary: int, tls: ServerTls) -> Component:
    described = valkey.component(state, port, "sentinel", tls=tls)
    file = described.folder / "sentinel.conf"
    options = {"bind": "127.0.0.1", "tls-replication": "yes", **valkey.tls_options(port, tls)}
    lines = [
        *(f"{name} {value}" for name, value in options.items()),
        f"sentinel monitor {SERVICE} 127.0.0.1 {primary} 1",
        f"sentinel auth-user {SERVICE} {ADMIN}",
        f"sentinel auth-pass {SERVICE} {ACCESS.password}",
    ]

    def prepare() -> None:
        described.folder.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join((*lines, "")))

    argv = (str(secured.redis_server()), str(file), "--sentinel")
    return replace(described, argv=argv, prepare=prepare)


@pytest.fixture
def cluster(tmp_path: Path, tls: ServerTls) -> Iterator[str]:
    """Start a node that has all slots; give the URL without the query."""
    port = free_port()
    described = valkey.component(
        tmp_path, port, access=ACCESS, tls=tls,
        cluster_enabled="yes", tls_cluster="yes", cluster_port=str(free_port()),
    )  # fmt: skip
    program = Program(described)
    program.start()
    with redis.Redis(
        port=port, ssl=True, ssl_ca_certs=str(tls.authority), username=ADMIN,
        password=ACCESS.password,
    ) as admin:  # fmt: skip
        admin.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, REDIS_CLUSTER_HASH_SLOTS - 1)
        eventually(lambda: "cluster_state:ok" in str(admin.execute_command("CLUSTER", "INFO")))
    yield f"rediss+cluster://{LOGIN}@127.0.0.1:{port}"
    program.kill()


@pytest.mark.parametrize("kind", ["sentinel", "cluster"])
def test_the_servers_are_verified_and_do_all_that_is_asked(
    request: pytest.FixtureRequest, tls: ServerTls, tmp_path: Path, kind: str
) -> None:
    url = request.getfixturevalue(kind)
    settings = CacheSettings(url=f"{url}?ssl_ca_certs={tls.authority}", timeout_s=10)
    cache = OrderCache(client := Redis(settings), settings)
    cache.start()
    try:
        eventually(lambda: cache._local.trusted)  # hears of changes
        cache.put(ORDER)
        assert len(cache._backlog) == 0
        limiter = RateLimiter(client, RateLimitSettings(requests=1000, mode="exact"))
        decision, replies = limiter.decide("user:7", (b"GET", f"{client.prefix}order:1"))
        assert (decision.allowed, replies) == (True, [encode(ORDER)])
    finally:
        cache.close()
        client.close()
    assert verified.UNKNOWN_AUTHORITY in refusal(url, Authority(tmp_path / "other").bundle)


def refusal(url: str, authority: Path) -> str:
    """Return why a process that trusts another authority does without Redis."""
    client = Redis(CacheSettings(url=f"{url}?ssl_ca_certs={authority}", timeout_s=10))
    with pytest.raises(RedisDown) as error:
        client.call(b"PING")
    client.close()
    return str(error.value)
