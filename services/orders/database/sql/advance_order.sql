-- Takes an order from one status to the next if it still is where the caller saw it (compare and
-- set); history, outbox and payment attempt commit with it. Returns no row otherwise.
-- A cancellation bumps the version; `cancel_requested` is compared as well, because the caller decided
-- by it where the order goes.
WITH moved AS (
    UPDATE orders SET
        status = %(to)s,
        status_reason = %(status_reason)s,
        reservation = coalesce(%(reservation)s, reservation),
        reservation_key = coalesce(%(reservation_key)s, reservation_key),
        completed_at = CASE
            WHEN %(to)s::text <> 'Completed' THEN completed_at
            WHEN %(from)s::text = 'Completed' THEN coalesce(completed_at, updated_at)
            ELSE now()
        END,
        refunded = refunded + %(refunded)s,
        refund_requested = refund_requested - %(refund_dropped)s,
        version = version + 1,
        updated_at = now(),
        emitted_at = now()
    WHERE id = %(id)s AND version = %(version)s AND status = %(from)s
    AND cancel_requested = %(cancel_requested)s
    RETURNING id, version, total, updated_at, refunded
),
recorded AS (
    INSERT INTO order_history (order_id, version, from_status, to_status, reason, actor, trace_id)
    SELECT id, version, %(from)s, %(to)s, %(reason)s, %(actor)s, %(trace_id)s FROM moved
),
announced AS (
    INSERT INTO outbox (aggregateid, type, payload, correlation_id, traceparent)
    SELECT
        id::text, %(announces)s,
        jsonb_build_object(
            'orderId', id, 'version', version, 'status', %(to)s::text,
            'reason', %(status_reason)s::text
        ),
        %(correlation_id)s, %(traceparent)s
    FROM moved
    WHERE %(announces)s::text IS NOT NULL
    RETURNING 1
),
started AS (
    INSERT INTO payment_attempts (id, order_id, kind, amount, outcome, actor)
    SELECT %(new_attempt)s, id, 'capture', total, 'unknown', %(actor)s
    FROM moved
    WHERE %(new_attempt)s::uuid IS NOT NULL AND %(outcome)s::text IS NULL
),
recovered AS (
    -- A capture that a failover lost, and Payment still knows, comes with its outcome. So does one
    -- that a person called declined before it reached Payment: then its row is there.
    INSERT INTO payment_attempts (id, order_id, kind, amount, outcome, actor)
    SELECT %(new_attempt)s, id, 'capture', total, %(outcome)s, %(actor)s
    FROM moved
    WHERE %(new_attempt)s::uuid IS NOT NULL AND %(outcome)s::text IS NOT NULL
    ON CONFLICT (id) DO UPDATE SET outcome = 'approved', reason = NULL, updated_at = now()
    WHERE payment_attempts.outcome = 'declined' AND excluded.outcome = 'approved'
),
settled AS (
    UPDATE payment_attempts SET
        outcome = %(outcome)s, reason = %(outcome_reason)s, updated_at = now()
    FROM moved
    WHERE %(outcome)s::text IS NOT NULL AND payment_attempts.id = %(attempt)s::uuid
)
SELECT
    moved.version, moved.updated_at, nullif(moved.refunded, 0) AS refunded,
    EXISTS (SELECT FROM announced) AND (SELECT idle FROM relay_wakeup) AS relay_sleeps
FROM moved
