-- Takes an order in one round trip: idempotency key, order, history and outbox row commit together.
-- Returns no row when the key is already stored; waits (lock_timeout) while its first use is running.
-- `relay_sleeps`: the caller has to wake the relay once this is committed.
WITH next AS (
    SELECT nextval('orders_id_seq') AS id
),
once AS (
    INSERT INTO idempotency_keys AS known
        (principal, route, key, fingerprint, status, body, location, etag, expires_at)
    SELECT
        %(principal)s, %(route)s, %(key)s, %(fingerprint)s, 202,
        format(%(body)s, id), format(%(location)s, id), %(etag)s, now() + interval '24 hours'
    FROM next
    WHERE %(key)s::text IS NOT NULL
    ON CONFLICT (principal, route, key) DO UPDATE SET
        fingerprint = excluded.fingerprint, body = excluded.body, location = excluded.location,
        etag = excluded.etag, status = excluded.status, expires_at = excluded.expires_at
    WHERE known.expires_at <= now()
    RETURNING 1
),
accepted AS (
    INSERT INTO orders
        (id, user_id, product_id, quantity, total, payment_method, correlation_id, traceparent)
    SELECT
        id, %(user_id)s, %(product_id)s, %(quantity)s, %(total)s, %(payment_method)s,
        %(correlation_id)s, %(traceparent)s
    FROM next
    WHERE %(key)s::text IS NULL OR EXISTS (SELECT FROM once)
    RETURNING id, user_id
),
recorded AS (
    INSERT INTO order_history (order_id, version, to_status, actor, trace_id)
    SELECT id, 1, 'Pending', 'customer', %(trace_id)s FROM accepted
),
announced AS (
    INSERT INTO outbox (aggregateid, type, payload, correlation_id, traceparent)
    SELECT
        id::text, 'order.created.v1',
        jsonb_build_object('orderId', id, 'version', 1, 'status', 'Pending', 'userId', user_id),
        %(correlation_id)s, %(traceparent)s
    FROM accepted
)
SELECT id, (SELECT idle FROM relay_wakeup) AS relay_sleeps
FROM accepted
