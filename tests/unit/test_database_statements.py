"""Whether a statement that failed may have been carried out."""

import psycopg
import pytest
from psycopg import errors
from psycopg_pool import PoolTimeout

from orders.database.statements import DeadlinePassed, Locked, OutcomeUnknown, ReadOnly, translated
from orders.errors import Transient


@pytest.mark.parametrize(
    "error",
    [
        psycopg.OperationalError("server closed the connection unexpectedly"),
        DeadlinePassed("no answer"),
        errors.AdminShutdown("57P01"),
        errors.lookup("08P01")("the pooler closed the connection"),
        errors.StatementCompletionUnknown("40003"),
    ],
)
def test_a_connection_that_ends_under_a_statement_leaves_its_outcome_unknown(
    error: psycopg.Error,
) -> None:
    with pytest.raises(OutcomeUnknown), translated():
        raise error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (PoolTimeout("none is free"), Transient),
        (errors.QueryCanceled("statement timeout"), Transient),
        (errors.DeadlockDetected("deadlock"), Transient),
        (errors.LockNotAvailable("lock timeout"), Locked),
        (errors.ReadOnlySqlTransaction("a standby"), ReadOnly),
        (errors.UndefinedTable("not migrated yet"), Transient),
        (psycopg.InterfaceError("misused"), Transient),
    ],
)
def test_what_the_server_refused_was_not_carried_out(
    error: psycopg.Error, kind: type[Transient]
) -> None:
    with pytest.raises(kind) as caught, translated():
        raise error
    assert not isinstance(caught.value, OutcomeUnknown)
