-- Asks for a refund, if the order still is where the caller saw it (compare and set): idempotency key,
-- attempt, history and outbox row commit together. Returns no row otherwise, and none when the key is already stored.
WITH target AS (
    SELECT id FROM orders
    WHERE id = %(id)s AND version = %(version)s AND status = %(status)s
    AND refund_requested + %(amount)s <= total
    FOR UPDATE
),
once AS (
    INSERT INTO idempotency_keys AS known
        (principal, route, key, fingerprint, status, body, location, etag, expires_at)
    SELECT
        %(principal)s, %(route)s, %(key)s, %(fingerprint)s, %(code)s, %(body)s, %(location)s,
        %(etag)s, now() + interval '24 hours'
    FROM target
    WHERE %(key)s::text IS NOT NULL
    ON CONFLICT (principal, route, key) DO UPDATE SET
        fingerprint = excluded.fingerprint, body = excluded.body, location = excluded.location,
        etag = excluded.etag, status = excluded.status, expires_at = excluded.expires_at
    WHERE known.expires_at <= now()
    RETURNING 1
),
asked AS (
    UPDATE orders SET
        refund_requested = refund_requested + %(amount)s,
        -- The window of a cancellation counts from the payment, not from this.
        completed_at = coalesce(completed_at, updated_at),
        version = version + 1,
        updated_at = now(),
        emitted_at = now()
    FROM target
    WHERE orders.id = target.id AND (%(key)s::text IS NULL OR EXISTS (SELECT FROM once))
    RETURNING orders.id, orders.version, orders.updated_at
),
recorded AS (
    INSERT INTO order_history
        (order_id, version, from_status, to_status, reason, note, actor, trace_id)
    SELECT
        id, version, %(status)s, %(status)s, %(reason)s, %(note)s, %(actor)s, %(trace_id)s
    FROM asked
),
started AS (
    INSERT INTO payment_attempts
        (id, order_id, kind, amount, number, actor, requested_by, note)
    SELECT
        %(attempt)s, id, 'refund', %(amount)s, %(number)s, %(actor)s, %(principal)s, %(note)s
    FROM asked
),
announced AS (
    INSERT INTO outbox (aggregateid, type, payload, correlation_id, traceparent)
    SELECT
        id::text, %(announces)s,
        jsonb_build_object('orderId', id, 'version', version, 'status', %(status)s::text),
        %(correlation_id)s, %(traceparent)s
    FROM asked
    RETURNING 1
)
SELECT
    version, updated_at,
    EXISTS (SELECT FROM announced) AND (SELECT idle FROM relay_wakeup) AS relay_sleeps
FROM asked
