"""Least privilege in PostgreSQL: what each process may do, and that it can do all of its work."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from decimal import Decimal
from importlib import resources
from pathlib import Path

import psycopg
import pytest
from psycopg import conninfo, errors

from devstack.ports import free_port
from integration.handles import Database
from integration.serving import eventually
from integration.shop import Shop
from integration.stores import cancellations_on, orders_on, refund_requests_on
from integration.world import World
from loadtest.repeating import Repeating
from orders.database import connection, roles
from orders.database.leadership import HOUSEKEEPING, Leadership
from orders.database.migrate import migrate
from orders.database.notifications import Notifications, SendResult
from orders.database.orders import History
from orders.database.pool import Pool
from orders.database.refund_requests import RefundCommand
from orders.database.routing import Reads, ReplicaLag
from orders.database.statements import statement
from orders.database.unmarked import UnmarkedWrites
from orders.domain import events
from orders.domain.lifecycle import Status
from orders.domain.order import NewOrder
from orders.errors import Permanent
from orders.relay.outbox import Outbox, Selection
from orders.settings import DatabaseSettings, WorkerSettings
from orders.telemetry import context
from orders.worker.collector import Collector
from orders.worker.housekeeping import Housekeeping
from upstreams.process import running

PREFIX = "tested_"
PASSWORD = "only-for-tests"
PAGE = Path(__file__).parents[2] / "docs" / "least-privilege.md"
PLACEHOLDER = re.compile(r"%\((\w+)\)s")
IDS = context.accept("test", None)[0]

# Which process runs which statement of `sql/`. A new statement must be named here.
EVERY_PROCESS = "check_pooled_session check_session find_timeline ping"
OWNER = """
    close_queue_notification find_schema list_granted_objects list_invalid_indexes list_privileges
    list_roles run_queue_notification_as_owner take_lock
"""
RUNS = {
    "api": """
        accept_order accept_orders announce_unmarked cancel_order find_account find_answer
        find_order find_position list_history list_orders request_refund sample_primary
        sample_replica wake_relay
    """,
    "relay": """
        count_outbox delete_outbox end_silent_leader find_last_outbox set_relay_idle take_lock
        take_outbox
    """,
    "worker": """
        advance_order advance_orders advance_sequences count_ended count_moved count_stuck
        count_unfinished count_unknown_payments count_violations emit_stalled end_silent_leader
        estimate_ended estimate_orders load_work load_works mark_processed purge_idempotency_keys
        purge_processed_messages purge_stalled_orders record_promotion sample_primary
        sample_replica set_relay_idle settle_stock settle_stocks start_refund take_lock wake_relay
    """,
    "notifier": """
        claim_due_notifications claim_order_notification claim_order_notifications
        count_notifications queue_notification settle_notification settle_notifications
    """,
    "support": """
        accept_violations advance_order advance_sequences begin_action begin_reconciliation
        count_young describe_action end_silent_leader find_attempt find_evidence find_watermark
        forget_under_way list_cases list_existing list_notifications list_stuck list_under_way
        list_violations load_work move_watermark next_orders note_suspects note_under_way
        note_unnotified reconcile_orders reconcile_payments reconcile_stock record_action
        record_case record_promotion refresh_unnotified resend_notifications set_relay_idle
        settled_letters take_lock trace_order wake_relay
    """,
    "reader": "list_history list_stuck count_stuck list_violations",
}

# What each process may do with at least one column of each table, and nothing else: select, insert,
# update, delete. A table that is not named is closed to it.
MAY = {
    "api": {
        "orders": "siu", "order_history": "si", "payment_attempts": "si", "outbox": "i",
        "idempotency_keys": "siu", "relay_wakeup": "s", "unmarked_writes": "su",
    },
    "relay": {"outbox": "sd", "relay_wakeup": "su"},
    "worker": {
        "orders": "su", "order_history": "i", "payment_attempts": "siu", "outbox": "i",
        "processed_messages": "siud", "idempotency_keys": "sud", "stalled_orders": "siud",
        "relay_wakeup": "su", "unmarked_writes": "s", "reconciliation": "s",
        "reconciliation_cases": "s", "promotions": "i",
    },
    "notifier": {"orders": "s", "notifications": "siu"},
    "support": {
        "orders": "su", "order_history": "si", "payment_attempts": "siu", "outbox": "si",
        "processed_messages": "si", "notifications": "su", "stalled_orders": "s",
        "relay_wakeup": "su", "reconciliation": "su", "reconciliation_cases": "siud",
        "operator_actions": "siu", "promotions": "si",
    },
    "reader": dict.fromkeys(
        (
            "orders", "order_history", "payment_attempts", "outbox", "processed_messages",
            "notifications", "stalled_orders", "reconciliation", "reconciliation_cases",
            "operator_actions", "promotions",
        ),
        "s",
    ),
}  # fmt: skip

PRIVILEGES = b"""
    SELECT c.relname, concat(
        CASE WHEN has_any_column_privilege(c.oid, 'SELECT') THEN 's' END,
        CASE WHEN has_any_column_privilege(c.oid, 'INSERT') THEN 'i' END,
        CASE WHEN has_any_column_privilege(c.oid, 'UPDATE') THEN 'u' END,
        CASE WHEN has_table_privilege(c.oid, 'DELETE') THEN 'd' END,
        CASE WHEN has_table_privilege(c.oid, 'TRUNCATE, TRIGGER') THEN 't' END
    )
    FROM pg_class AS c
    WHERE c.relkind IN ('r', 'p') AND c.relnamespace = current_schema::regnamespace
"""

NOBODY_MAY = (
    "CREATE TABLE mine (id int)", "CREATE FUNCTION mine() RETURNS int LANGUAGE sql RETURN 1",
    "TRUNCATE outbox", "DROP TABLE notifications", "ALTER TABLE orders ADD COLUMN mine int",
    "CREATE INDEX ON orders (total)", "DELETE FROM orders", "DELETE FROM order_history",
    "UPDATE order_history SET actor = 'me'", "UPDATE orders SET total = 1",
    "UPDATE orders SET user_id = 1", "UPDATE orders SET nonce = NULL",
    "UPDATE payment_attempts SET amount = 1", "DELETE FROM payment_attempts",
    "UPDATE outbox SET payload = '{}'", "DELETE FROM operator_actions",
    "UPDATE operator_actions SET actor = 'me'", "CREATE ROLE mine",
    "DROP FUNCTION queue_notification CASCADE", "COPY orders TO PROGRAM 'true'",
)  # fmt: skip
MAY_NOT = {
    "api": (
        "SELECT payment_method FROM orders", "UPDATE orders SET refunded = 1",
        "INSERT INTO orders (user_id, status) VALUES (1, 'Completed')",
        "UPDATE payment_attempts SET outcome = 'approved'",
        "INSERT INTO payment_attempts (order_id, outcome) VALUES (1, 'approved')",
        "SELECT FROM notifications", "SELECT setval('orders_id_seq', 1)", "SELECT id FROM outbox",
    ),
    "relay": ("SELECT id FROM orders", "INSERT INTO outbox (type) VALUES ('x')"),
    "worker": (
        "INSERT INTO orders (user_id) VALUES (1)", "UPDATE orders SET cancel_requested = true",
        "SELECT body FROM idempotency_keys", "UPDATE idempotency_keys SET body = ''",
        "UPDATE notifications SET sent_at = now()",
    ),
    "notifier": ("SELECT total FROM orders", "UPDATE notifications SET message_id = NULL"),
    "support": (
        "INSERT INTO orders (user_id) VALUES (1)", "SELECT key FROM idempotency_keys",
        "UPDATE operator_actions SET because = 'none'", "DELETE FROM notifications",
    ),
    "reader": (
        "SELECT payment_method FROM orders", "SELECT * FROM orders", "SELECT FROM idempotency_keys",
        "SELECT nextval('orders_id_seq')", "UPDATE relay_wakeup SET idle = true",
        "SELECT id FROM orders FOR UPDATE",
    ),
}  # fmt: skip


class Logins:
    """A login for each process, in the group role of the process, and the pools they opened."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.closing = ExitStack()

    def url(self, process: str) -> str:
        scheme, _, location = self.database.url.partition("://")
        return f"{scheme}://{PREFIX}login_{process}:{PASSWORD}@{location.rpartition('@')[2]}"

    def settings(self, process: str) -> DatabaseSettings:
        return DatabaseSettings(url=self.url(process))

    def pool(self, process: str, login: str | None = None, password: str = PASSWORD) -> Pool:
        """Open a pool of a process, with its login or another."""
        settings = self.settings(process)
        if login is not None:
            url = self.url(process).replace(
                f"{PREFIX}login_{process}:{PASSWORD}", f"{login}:{password}"
            )
            settings = DatabaseSettings(url=url)
        pool = Pool(settings.url, settings, "test")
        pool.open()
        self.closing.callback(pool.close)
        return pool

    def migrate(self) -> list[str]:
        return migrate(DatabaseSettings(url=self.database.url, role_prefix=PREFIX))


@pytest.fixture(scope="module")
def logins(database: Database) -> Iterator[Logins]:
    """Create the roles and a login in each, as docs/least-privilege.md describes, and migrate."""
    names = [f"{PREFIX}{process}" for process in roles.PROCESSES]
    with psycopg.connect(database.admin_url, autocommit=True) as admin:
        admin.execute(documented("group roles").replace("orders_", PREFIX).encode())
        for process in roles.PROCESSES:
            login, role = f"{PREFIX}login_{process}", f"{PREFIX}{process}"
            statement = f"CREATE ROLE {login} LOGIN PASSWORD '{PASSWORD}' IN ROLE {role}"
            admin.execute(statement.encode())
            names.append(login)
        logins = Logins(database)
        logins.migrate()
        yield logins
        logins.closing.close()
        admin.execute(f"DROP OWNED BY {', '.join(names)}".encode())
        admin.execute(f"DROP ROLE {', '.join(names)}".encode())


def documented(name: str) -> str:
    """Return a block of SQL of the page, by the comment that it begins with."""
    blocks = PAGE.read_text().split("```sql\n")[1:]
    return next(block for block in blocks if block.startswith(f"-- {name}")).partition("```")[0]


@pytest.fixture
def connect(logins: Logins) -> Iterator[Callable[[str], psycopg.Connection]]:
    with ExitStack() as closing:
        yield lambda process: closing.enter_context(
            psycopg.connect(logins.url(process), cursor_factory=psycopg.ClientCursor)
        )


Session = psycopg.Connection[tuple[object, ...]]
Connect = Callable[[str], Session]


def test_every_statement_is_run_by_some_process() -> None:
    files = resources.files("orders.database").joinpath("sql").iterdir()
    names = {file.name.removesuffix(".sql") for file in files}
    listed = [EVERY_PROCESS, OWNER, *RUNS.values()]
    assert names == {name for statements in listed for name in statements.split()}


@pytest.mark.parametrize("process", roles.PROCESSES)
def test_a_process_may_run_its_statements(process: str, connect: Connect) -> None:
    session = connect(process)
    for name in f"{EVERY_PROCESS} {RUNS[process]}".split():
        explain(session, name)  # checks the privileges of every table of the statement


def explain(session: Session, name: str) -> None:
    """Plan a statement without values."""
    values = dict.fromkeys(PLACEHOLDER.findall(statement(name).decode()))
    session.execute(b"EXPLAIN " + statement(name), values)


@pytest.mark.parametrize("process", roles.PROCESSES)
def test_a_process_has_the_privileges_of_the_matrix_and_no_others(
    process: str, connect: Connect
) -> None:
    privileges = {
        table: commands for table, commands in connect(process).execute(PRIVILEGES) if commands
    }
    assert privileges == MAY[process]


def test_the_page_has_the_matrix() -> None:
    header, *rows = re.findall(r"^\| (table|`\w+`) \| (.*) \|$", PAGE.read_text(), re.MULTILINE)
    processes = header[1].split(" | ")
    assert processes == list(MAY)
    listed: dict[str, dict[str, str]] = {process: {} for process in processes}
    for table, rights in rows:
        for process, rights_of_process in zip(processes, rights.split("|"), strict=True):
            if rights_of_process.strip():
                listed[process][table.strip("`")] = rights_of_process.replace(" ", "")
    assert listed == MAY


@pytest.mark.parametrize("process", roles.PROCESSES)
def test_a_process_is_refused_whatever_else_it_tries(process: str, connect: Connect) -> None:
    session = connect(process)
    tried = (*NOBODY_MAY, *MAY_NOT[process])
    assert [query for query in tried if not is_refused(session, query)] == []


def is_refused(session: Session, query: str) -> bool:
    """Try a statement, and undo it."""
    try:
        session.execute(query.encode())
    except errors.InsufficientPrivilege:
        return True
    finally:
        session.rollback()
    return False


class Services:
    """All processes in one: each uses the pool of its own login."""

    def __init__(self, logins: Logins, world: World) -> None:
        self.logins, self.world = logins, world
        self.api, self.worker = logins.pool("api"), world.pool
        self.ledger = world.ledger = orders_on(self.api)
        world.cancellations = cancellations_on(self.api)
        self.refunds = refund_requests_on(self.api)
        self.owner = psycopg.connect(logins.database.url, autocommit=True)
        logins.closing.callback(self.owner.close)

    def run(self, query: str, *values: object) -> list[tuple[object, ...]]:
        """Run a statement as the owner, with rights that no process has."""
        cursor = self.owner.execute(query.encode(), values)
        return cursor.fetchall() if cursor.description else []

    def status(self, order_id: int) -> Status:
        return self.world.find(order_id).status


@pytest.fixture(scope="module")
def services(logins: Logins) -> Iterator[Services]:
    with running("inventory", free_port()) as stock, running("payment", free_port()) as till:
        world = World(logins.pool("worker"), stock, till)
        yield Services(logins, world)
        for upstream in world.upstreams:
            upstream.close()


def test_the_api_takes_finds_lists_and_cancels(services: Services) -> None:
    order = NewOrder(7, 1, 2, Decimal("19.90"), "card")
    key = f"key-{time.monotonic_ns()}"
    first = services.ledger.accept(order, IDS, "u:7", key)
    assert services.ledger.accept(order, IDS, "u:7", key).order_id is None  # the stored answer
    assert first.order_id is not None
    assert services.status(first.order_id) is Status.PENDING
    assert services.ledger.page(7, 20, None, 0, own_writes=True)
    assert services.ledger.page(7, 20, None, 300, own_writes=True) == []
    assert services.world.cancel(first.order_id) is not None
    entries = History(Reads(services.api, None, None, 1)).of(
        first.order_id, "7", everyones=False, own_writes=True
    )
    assert [entry.to_status for entry in entries] == ["Pending", "Cancelled"]
    UnmarkedWrites(services.api, keep_s=0.1, max_lag_s=0).announce()


def test_a_login_is_replaced_under_load(logins: Logins) -> None:
    """docs/least-privilege.md has the steps: another login, new processes with it, no first one."""
    with psycopg.connect(logins.database.admin_url, autocommit=True) as admin:
        admin.execute(renamed("logins"))
        old = logins.pool("api", f"{PREFIX}shop_api", "choose-one")
        ledgers = [orders_on(old)]

        def order() -> None:
            ledgers[-1].accept(NewOrder(7, 1, 1, Decimal(1), "card"), IDS, "u:7", None)

        try:
            with Repeating(order, order, order) as customers:
                customers.go_on(60)
                admin.execute(renamed("a second login"))
                new = logins.pool("api", f"{PREFIX}shop_api_2", "choose-another")
                customers.go_on(60)
                ledgers.append(orders_on(new))
                customers.go_on(60)
                old.close()
                admin.execute(renamed("the first login goes"))
                customers.go_on(60)
        finally:
            new.close()
            admin.execute(f"DROP ROLE {PREFIX}shop_api_2".encode())


def renamed(block: str) -> bytes:
    """Return a block of the page for the roles of this test."""
    text = documented(block).replace("shop_api", f"{PREFIX}shop_api")
    return text.replace("orders_", PREFIX).encode()


@pytest.mark.parametrize("sets", [False, True], ids=["one by one", "in sets"])
def test_the_worker_completes_declines_cancels_and_pays_back(
    services: Services, *, sets: bool
) -> None:
    world = services.world
    world.sets = sets
    completed, declined, cancelled = world.order(), world.order(method="decline"), world.order()
    for order_id in (completed, declined):
        world.handle(order_id)
    world.cancel(cancelled)
    world.handle(cancelled, events.CANCELLED)
    statuses = [services.status(order_id) for order_id in (completed, declined, cancelled)]
    assert statuses == [Status.COMPLETED, Status.FAILED, Status.CANCELLED]

    refund = RefundCommand(
        order_id=completed, principal="support", amount=Decimal(5), key=f"part-{completed}"
    )
    assert services.refunds.add(refund, IDS) is not None
    world.handle(completed, events.REFUND_DUE)
    world.cancel(completed)
    assert services.status(completed) is Status.REFUNDING
    world.handle(completed, events.REFUND_DUE)
    assert services.status(completed) is Status.REFUNDED
    assert sum(amount for amount, _ in world.refunds(completed)) == Decimal("19.90")


def test_the_elected_worker_sweeps_counts_and_deletes(services: Services) -> None:
    order_id = services.world.order()
    services.ledger.accept(NewOrder(7, 1, 1, Decimal(1), "card"), IDS, "u:7", "old")
    services.run("UPDATE orders SET emitted_at = now() - interval '1 day' WHERE id = %s", order_id)
    services.run("UPDATE idempotency_keys SET expires_at = now()")
    services.run(
        "INSERT INTO processed_messages"
        " VALUES ('worker', gen_random_uuid(), now() - interval '8 d')"
    )
    collector = Collector()
    leadership = Leadership(services.logins.settings("worker"), HOUSEKEEPING, "test")
    settings = WorkerSettings(sweep_s=0.01, collect_s=0.01)
    housekeeping = Housekeeping(services.worker, leadership, collector, settings)
    for _ in range(2):  # the second tells what became of the orders of the first
        housekeeping.round()
        time.sleep(0.02)
    housekeeping.stop_leading()
    assert services.run("SELECT 1 FROM stalled_orders WHERE order_id = %s", order_id)
    assert services.run("SELECT 1 FROM idempotency_keys WHERE expires_at <= now()") == []
    old = "SELECT 1 FROM processed_messages WHERE processed_at < now() - interval '7 d'"
    assert services.run(old) == []


@pytest.mark.parametrize("process", ["worker", "support"])
def test_sequences_are_set_ahead_after_a_promotion(services: Services, process: str) -> None:
    settings = services.logins.settings(process)
    with closing(connection.connect(connection.sessions(settings), settings, "test")) as session:
        recorded = {"system": f"of {process}", "timeline": time.time_ns(), "skip": 10}
        assert session.execute(statement("record_promotion"), recorded).fetchall()
        advanced = session.execute(statement("advance_sequences"), {"skip": 10})
        sequences: dict[str, int] = dict(advanced.fetchall())
        session.execute(statement("set_relay_idle"), {"idle": True})
    assert set(sequences) == {"operator_actions_id_seq", "orders_id_seq", "outbox_seq_seq"}


def test_the_relay_leads_takes_and_deletes(services: Services) -> None:
    services.world.order()
    settings = services.logins.settings("relay")
    with closing(connection.connect(connection.sessions(settings), settings, "test")) as session:
        outbox = Outbox(session)
        assert outbox.lead()
        outbox.set_idle(idle=False)
        assert outbox.backlog().pending >= 1
        rows = outbox.take(10_000, Selection())
        assert outbox.last() == rows[-1].seq
        outbox.delete(rows)
        assert outbox.take(10_000, Selection()) == []
        outbox.set_idle(idle=True)


def test_the_notifier_claims_and_settles(services: Services) -> None:
    order_id = services.world.order()
    services.world.handle(order_id)
    notifications = Notifications(services.logins.pool("notifier"), 5)
    claimed = notifications.claim(order_id)
    assert claimed is not None
    assert notifications.settle(claimed, SendResult(sent=True)) is False
    services.run("UPDATE notifications SET next_at = now(), claimed_until = '-infinity'")
    notifications.claim_due(10)
    assert notifications.count().given_up == 0
    order = services.world.order()
    message = "00000000-0000-4000-8000-000000000000"
    event = events.OrderEvent(order, 1, "Pending")
    assert notifications.queue(message, events.COMPLETED, event, ("test", ""))


def test_people_reconcile_and_settle(services: Services) -> None:
    world, database = services.world, services.logins.database
    shop = Shop(database, world.inventory, world.payment)
    shop.environ["ORDERS_DATABASE_URL"] = services.logins.url("support")
    shop.empty()
    try:
        settle(shop)
    finally:
        shop.close()


def settle(shop: Shop) -> None:
    shop.sold()
    shop.capture(4712)
    assert shop.reconcile()[0] == 2
    assert shop.reconcile("--full")[1] == [(4712, "charged_for_nothing"), (4712, "lost")]
    because = ("--because", "a test", "--as", "ada")
    answer = shop.command("reconcile", "--accept", "4712", *because)
    charging = shop.order("Charging", reservation="held")
    attempt = shop.attempt(charging, "unknown")
    resolved = shop.command("payments", "resolve", attempt, "--captured", "--yes", *because)
    order_id = shop.sold(notified=False)
    shop.run(
        "INSERT INTO notifications"
        " (order_id, template, message_id, claimed_until, ended_at, outcome)"
        " VALUES (%s, 'order.completed.v1', gen_random_uuid(), now(), now(), 'given_up')",
        order_id,
    )
    resent = shop.command("notifications", "resend", "--state", "given_up")
    reports = [shop.command(*words) for words in (("stuck",), ("trace", str(charging), "--json"))]
    for code, _, err in (answer, resolved, resent, *reports, shop.command("after-promotion")):
        assert code == 0, err


def test_migrations_repair_privileges_and_write_nothing_when_nothing_changed(
    logins: Logins, connect: Connect
) -> None:
    def changed() -> bool:
        settings = DatabaseSettings(url=logins.database.url)
        server = connection.sessions(settings)
        with closing(connection.connect(server, settings, "test")) as session:
            return roles.grant(session, PREFIX)

    assert not changed()
    with psycopg.connect(logins.database.url, autocommit=True) as owner:
        owner.execute(f"GRANT DELETE ON orders TO {PREFIX}api".encode())
        owner.execute(f"GRANT UPDATE (total) ON orders TO {PREFIX}worker".encode())
        owner.execute(f"REVOKE ALL ON outbox FROM {PREFIX}relay".encode())
        owner.execute(b"ALTER FUNCTION queue_notification() SECURITY INVOKER")
    assert logins.migrate() == []
    for process in ("api", "relay", "worker"):
        privileges = connect(process).execute(PRIVILEGES)
        assert {table: commands for table, commands in privileges if commands} == MAY[process]
    with pytest.raises(errors.InsufficientPrivilege):
        connect("worker").execute("UPDATE orders SET total = 1")
    assert not changed()


def test_a_prefix_without_roles_is_refused(logins: Logins) -> None:
    with pytest.raises(Permanent, match=r"none of the roles nobody_api, .* exist: create them"):
        migrate(DatabaseSettings(url=logins.database.url, role_prefix="nobody_"))


def test_replica_lag_is_measured_by_the_api_and_the_worker(
    logins: Logins, database: Database
) -> None:
    for process in ("api", "worker"):
        where = database.replica_url.rpartition("@")[2]
        scheme_and_user = logins.url(process).rpartition("@")[0]
        lag = ReplicaLag(logins.settings(process), f"{scheme_and_user}@{where}")
        lag.start()
        try:
            eventually(lambda lag=lag: lag.lag_s() < 1)  # type: ignore[misc] # mypy knows no defaults
        finally:
            lag.stop()


ADOPTED = f"{PREFIX}adopted"  # in place of the names of the adopting page, which are the tests' own


def as_adopted(database: Database, role: str) -> str:
    """Return the URL of a role of the adopting page, with its password."""
    return conninfo.make_conninfo(
        database.admin_url, dbname=ADOPTED, user=f"{ADOPTED}_{role}", password=PASSWORD
    )


@pytest.fixture
def adopted(database: Database) -> Iterator[None]:
    """Type the lines of the adopting page that PostgreSQL and psql understand."""
    page = PAGE.with_name("adopting.md").read_text().replace("…", PASSWORD)
    lines = re.findall(r"^    ((?:CREATE|ALTER|\\c) .+)$", page, re.MULTILINE)
    with psycopg.connect(database.admin_url, autocommit=True) as admin:
        session = admin
        for line in lines:
            command, _, words = re.sub(r"\borders(?=[_ ])", ADOPTED, line).partition(" ")
            if command == r"\c":
                session = psycopg.connect(as_adopted(database, "owner"), autocommit=True)
                assert words == f"{ADOPTED} {ADOPTED}_owner"
            else:
                session.execute(f"{command} {words}".encode())
        session.close()
    yield
    with psycopg.connect(database.admin_url, autocommit=True) as admin:
        admin.execute(f"DROP DATABASE {ADOPTED} WITH (FORCE)".encode())
        admin.execute(f"DROP ROLE {ADOPTED}_app, {ADOPTED}_owner".encode())


def test_the_users_of_the_adopting_page_can_migrate_and_take_orders(
    database: Database, adopted: None
) -> None:
    migrate(DatabaseSettings(url=as_adopted(database, "owner")))
    settings = DatabaseSettings(url=as_adopted(database, "app"))
    with closing(Pool(settings.url, settings, "test")) as pool:
        pool.open()
        ledger = orders_on(pool)
        ledger.accept(NewOrder(7, 1, 1, Decimal(1), "card"), IDS, "u:7", None)
    with psycopg.connect(settings.url) as app:
        privileges: dict[str, str] = dict(app.execute(PRIVILEGES).fetchall())
    assert privileges["orders"] == "siud"
    assert set(privileges.values()) == {"siud"}
