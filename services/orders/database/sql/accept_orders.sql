-- accept_order for several orders at once: each with its key, history and outbox row, all in one commit.
-- Returns the numbers of the orders that were taken, from 1; one whose key is already stored is left out. A key
-- occurs once in a set, and keys are written in their order, so that two sets never wait for each other.
WITH new AS MATERIALIZED (
    SELECT nextval('orders_id_seq') AS id, sent.*
    FROM (
        SELECT * FROM ROWS FROM (
            json_to_recordset(%(orders)s::json) AS (
                principal text, key text, fingerprint text,
                user_id bigint, product_id bigint, quantity integer, total numeric, payment_method text,
                correlation_id text, traceparent text, trace_id text
            )
        ) WITH ORDINALITY AS row (
            principal, key, fingerprint, user_id, product_id, quantity, total, payment_method,
            correlation_id, traceparent, trace_id, number
        )
        ORDER BY principal, key
    ) AS sent
),
once AS (
    INSERT INTO idempotency_keys AS known
        (principal, route, key, fingerprint, status, body, location, etag, expires_at)
    SELECT
        principal, %(route)s, key, decode(fingerprint, 'base64'), 202,
        format(%(body)s, id), format(%(location)s, id), %(etag)s, now() + interval '24 hours'
    FROM new
    WHERE key IS NOT NULL
    ON CONFLICT (principal, route, key) DO UPDATE SET
        fingerprint = excluded.fingerprint, body = excluded.body, location = excluded.location,
        etag = excluded.etag, status = excluded.status, expires_at = excluded.expires_at
    WHERE known.expires_at <= now()
    RETURNING principal, key
),
accepted AS (
    INSERT INTO orders
        (id, user_id, product_id, quantity, total, payment_method, correlation_id, traceparent)
    SELECT
        id, user_id, product_id, quantity, total, payment_method, correlation_id, traceparent
    FROM new
    WHERE key IS NULL OR (principal, key) IN (SELECT once.principal, once.key FROM once)
    RETURNING id
),
recorded AS (
    INSERT INTO order_history (order_id, version, to_status, actor, trace_id)
    SELECT id, 1, 'Pending', 'customer', new.trace_id FROM accepted JOIN new USING (id)
),
announced AS (
    INSERT INTO outbox (aggregateid, type, payload, correlation_id, traceparent)
    SELECT
        id::text, 'order.created.v1',
        jsonb_build_object('orderId', id, 'version', 1, 'status', 'Pending', 'userId', new.user_id),
        new.correlation_id, new.traceparent
    FROM accepted JOIN new USING (id)
)
SELECT new.number, id, (SELECT idle FROM relay_wakeup) AS relay_sleeps
FROM accepted JOIN new USING (id)
