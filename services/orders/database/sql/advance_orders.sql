-- advance_order for several orders at once, those of refunds left out: takes each to its next status if
-- it still is where the caller saw it (compare and set), with its history, outbox and payment attempt.
-- Returns the rows that moved. A row that others lock is left out: one must not keep all others waiting.
-- A row that changed since the statement began is locked as it is now, and compared as it is now.
WITH step AS MATERIALIZED (
    SELECT * FROM json_to_recordset(%(steps)s::json) AS step (
        id bigint, version integer, from_status text, cancel_requested boolean, to_status text,
        status_reason text, reason text, announces text, reservation text, reservation_key text,
        new_attempt uuid, attempt uuid, outcome text,
        correlation_id text, traceparent text, trace_id text
    )
),
locked AS MATERIALIZED (
    SELECT orders.id FROM orders
    WHERE orders.id IN (SELECT step.id FROM step)
    ORDER BY orders.id
    FOR NO KEY UPDATE SKIP LOCKED
),
moved AS (
    UPDATE orders AS o SET
        status = step.to_status,
        status_reason = step.status_reason,
        reservation = coalesce(step.reservation, o.reservation),
        reservation_key = coalesce(step.reservation_key, o.reservation_key),
        completed_at = CASE WHEN step.to_status = 'Completed' THEN now() ELSE o.completed_at END,
        version = o.version + 1,
        updated_at = now(),
        emitted_at = now()
    FROM step
    JOIN locked ON locked.id = step.id
    WHERE o.id = step.id AND o.version = step.version AND o.status = step.from_status
    AND o.cancel_requested = step.cancel_requested
    RETURNING o.id, o.version, o.total, o.updated_at, o.refunded
),
recorded AS (
    INSERT INTO order_history (order_id, version, from_status, to_status, reason, actor, trace_id)
    SELECT
        moved.id, moved.version, step.from_status, step.to_status, step.reason, %(actor)s, step.trace_id
    FROM moved JOIN step ON step.id = moved.id
),
announced AS (
    INSERT INTO outbox (aggregateid, type, payload, correlation_id, traceparent)
    SELECT
        moved.id::text, step.announces,
        jsonb_build_object(
            'orderId', moved.id, 'version', moved.version, 'status', step.to_status,
            'reason', step.status_reason
        ),
        step.correlation_id, step.traceparent
    FROM moved JOIN step ON step.id = moved.id
    WHERE step.announces IS NOT NULL
    RETURNING 1
),
started AS (
    INSERT INTO payment_attempts (id, order_id, kind, amount, actor)
    SELECT step.new_attempt, moved.id, 'capture', moved.total, %(actor)s
    FROM moved JOIN step ON step.id = moved.id
    WHERE step.new_attempt IS NOT NULL
),
settled AS (
    UPDATE payment_attempts SET outcome = step.outcome, updated_at = now()
    FROM moved JOIN step ON step.id = moved.id
    WHERE step.outcome IS NOT NULL AND payment_attempts.id = step.attempt
)
SELECT
    moved.id, moved.version, moved.updated_at, nullif(moved.refunded, 0) AS refunded,
    EXISTS (SELECT FROM announced) AND (SELECT idle FROM relay_wakeup) AS relay_sleeps
FROM moved
