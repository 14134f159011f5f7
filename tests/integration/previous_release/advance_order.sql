-- Takes an order from one status to the next if it still is where the caller saw it (compare and
-- set); history, outbox, payment attempt and inbox row commit with it. Returns no row otherwise.
WITH moved AS (
    UPDATE orders SET
        status = %(to)s,
        status_reason = %(reason)s,
        reservation = coalesce(%(reservation)s, reservation),
        version = version + 1,
        updated_at = now(),
        emitted_at = now()
    WHERE id = %(id)s AND version = %(version)s AND status = %(from)s
    RETURNING id, version, total, updated_at
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
            'orderId', id, 'version', version, 'status', %(to)s::text, 'reason', %(reason)s::text
        ),
        %(correlation_id)s, %(traceparent)s
    FROM moved
    WHERE %(announces)s::text IS NOT NULL
    RETURNING 1
),
started AS (
    INSERT INTO payment_attempts (id, order_id, kind, amount)
    SELECT %(new_attempt)s, id, 'capture', total FROM moved
    WHERE %(new_attempt)s::uuid IS NOT NULL
),
settled AS (
    UPDATE payment_attempts SET outcome = %(outcome)s, updated_at = now()
    FROM moved
    WHERE %(outcome)s::text IS NOT NULL AND payment_attempts.id = %(attempt)s::uuid
),
processed AS (
    INSERT INTO processed_messages (consumer, message_id)
    SELECT %(consumer)s, %(message_id)s FROM moved
    WHERE %(message_id)s::uuid IS NOT NULL
    ON CONFLICT DO NOTHING
)
SELECT
    moved.version, moved.updated_at,
    (
        SELECT pg_notify('outbox', '') IS NULL FROM relay_wakeup
        WHERE idle AND EXISTS (SELECT FROM announced)
    ) AS woken
FROM moved
