-- What each process may do: the privileges of its group role. `orders migrate` brings them up to date after the
-- migrations where ORDERS_DATABASE_ROLE_PREFIX is set; all other privileges in this schema are revoked.
-- One role a statement: statements of roles that do not exist are left out. {api} stands for the prefix and `api`.
-- A release must not lose a privilege that the release before it still uses.

-- api: takes orders and cancels them. Never a price, an outcome of a payment, or a payment method to read.
GRANT USAGE ON SCHEMA {schema} TO {api};
GRANT USAGE ON SEQUENCE orders_id_seq TO {api};
GRANT
SELECT (
    id, user_id, product_id, quantity, total, status, status_reason, version, cancel_requested, reservation,
    reservation_key, created_at, updated_at, completed_at, nonce, refund_requested, refunded
),
INSERT (id, user_id, product_id, quantity, total, payment_method, correlation_id, traceparent),
UPDATE (
    status, status_reason, version, cancel_requested, cancelled_by, reservation, reservation_key,
    refund_requested, completed_at, updated_at, emitted_at
)
ON orders TO {api};
GRANT
SELECT, INSERT (order_id, version, from_status, to_status, reason, note, actor, trace_id)
ON order_history TO {api};
GRANT
SELECT (order_id, kind, number),
INSERT (id, order_id, kind, amount, number, actor, requested_by, note)
ON payment_attempts TO {api};
GRANT INSERT (aggregateid, type, payload, correlation_id, traceparent) ON outbox TO {api};
GRANT SELECT, INSERT, UPDATE ON idempotency_keys TO {api};
GRANT SELECT ON relay_wakeup TO {api};
GRANT SELECT, UPDATE (until) ON unmarked_writes TO {api};

-- relay: publishes the outbox.
GRANT USAGE ON SCHEMA {schema} TO {relay};
GRANT SELECT, DELETE ON outbox TO {relay};
GRANT SELECT, UPDATE (idle) ON relay_wakeup TO {relay};

-- worker: brings orders to their end; the elected one also emits stalled orders again, deletes old rows, counts,
-- and sets sequences ahead after a promotion. It takes no orders and changes no prices.
GRANT USAGE ON SCHEMA {schema} TO {worker};
GRANT SELECT, UPDATE ON SEQUENCE orders_id_seq, outbox_seq_seq, operator_actions_id_seq TO {worker};
GRANT
SELECT,
UPDATE (
    status, status_reason, version, reservation, reservation_key, completed_at, refund_requested, refunded,
    updated_at, emitted_at
)
ON orders TO {worker};
GRANT
INSERT (order_id, version, from_status, to_status, reason, note, actor, trace_id)
ON order_history TO {worker};
GRANT
SELECT, INSERT (id, order_id, kind, amount, outcome, number, actor), UPDATE (outcome, reason, updated_at)
ON payment_attempts TO {worker};
GRANT INSERT (aggregateid, type, payload, correlation_id, traceparent) ON outbox TO {worker};
GRANT SELECT, UPDATE (idle) ON relay_wakeup TO {worker};
-- SELECT … FOR UPDATE, by which purging skips rows that others lock, asks for UPDATE of some column.
GRANT SELECT, INSERT, UPDATE (processed_at), DELETE ON processed_messages TO {worker};
GRANT SELECT (ctid, expires_at), UPDATE (expires_at), DELETE ON idempotency_keys TO {worker};
GRANT SELECT, INSERT, UPDATE, DELETE ON stalled_orders TO {worker};
GRANT SELECT ON unmarked_writes TO {worker};
GRANT SELECT ON reconciliation TO {worker};
GRANT SELECT ON reconciliation_cases TO {worker};
GRANT INSERT ON promotions TO {worker};

-- notifier: sends what waits in the notifications' rows.
GRANT USAGE ON SCHEMA {schema} TO {notifier};
GRANT SELECT (id, version) ON orders TO {notifier};
GRANT
SELECT,
INSERT (
    order_id, template, message_id, tries, claimed_until, version, status, reason, correlation_id, traceparent
),
UPDATE (claimed_until, tries, last_error, sent_at, ended_at, outcome, next_at)
ON notifications TO {notifier};

-- support: reconciliation, and the commands by which people settle orders. It takes no orders.
GRANT USAGE ON SCHEMA {schema} TO {support};
GRANT SELECT, UPDATE ON SEQUENCE orders_id_seq, outbox_seq_seq, operator_actions_id_seq TO {support};
GRANT
SELECT,
UPDATE (
    status, status_reason, version, reservation, reservation_key, completed_at, refund_requested, refunded,
    updated_at, emitted_at
)
ON orders TO {support};
GRANT
SELECT, INSERT (order_id, version, from_status, to_status, reason, note, actor, trace_id)
ON order_history TO {support};
GRANT
SELECT, INSERT (id, order_id, kind, amount, outcome, number, actor), UPDATE (outcome, reason, updated_at)
ON payment_attempts TO {support};
GRANT SELECT, INSERT (aggregateid, type, payload, correlation_id, traceparent) ON outbox TO {support};
GRANT SELECT, UPDATE (idle) ON relay_wakeup TO {support};
GRANT SELECT, INSERT ON processed_messages TO {support};
GRANT
SELECT,
UPDATE (next_at, claimed_until, tries, queued_at, last_error, ended_at, outcome, sent_at)
ON notifications TO {support};
GRANT SELECT ON stalled_orders TO {support};
GRANT SELECT, UPDATE ON reconciliation TO {support};
GRANT SELECT, INSERT, UPDATE, DELETE ON reconciliation_cases TO {support};
GRANT SELECT, INSERT, UPDATE (detail) ON operator_actions TO {support};
GRANT SELECT, INSERT ON promotions TO {support};

-- reader: for people and reports. Neither payment methods nor stored answers.
GRANT USAGE ON SCHEMA {schema} TO {reader};
GRANT
SELECT (
    id, user_id, product_id, quantity, total, status, status_reason, version, cancel_requested, cancelled_by,
    reservation, reservation_key, correlation_id, traceparent, created_at, updated_at, emitted_at, completed_at,
    nonce, refund_requested, refunded
)
ON orders TO {reader};
GRANT SELECT ON order_history TO {reader};
GRANT SELECT ON payment_attempts TO {reader};
GRANT SELECT ON outbox TO {reader};
GRANT SELECT ON processed_messages TO {reader};
GRANT SELECT ON notifications TO {reader};
GRANT SELECT ON stalled_orders TO {reader};
GRANT SELECT ON reconciliation TO {reader};
GRANT SELECT ON reconciliation_cases TO {reader};
GRANT SELECT ON operator_actions TO {reader};
GRANT SELECT ON promotions TO {reader};
