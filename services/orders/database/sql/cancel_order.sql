-- Cancels an order, or notes that it shall be cancelled, in one round trip: idempotency key, order,
-- history and outbox row commit together. What a cancellation does in which status comes in as a table.
-- The row is locked before it is read, so that no other session changes the order in between.
-- Returns no row when there is no such order (of this owner). `answered` is false when the key is already
-- stored: its stored answer holds then. `late` says that the window has closed, by this server's clock.
WITH target AS (
    SELECT
        id, user_id, product_id, quantity, total, status, version, created_at, updated_at,
        status_reason, cancel_requested, refunded, nonce, completed_at,
        CASE
            WHEN %(subject)s::text IS NULL OR user_id::text = %(subject)s::text THEN 'customer'
            ELSE 'support'
        END AS actor
    FROM orders
    WHERE id = %(id)s AND (%(everyones)s OR user_id::text = %(subject)s::text)
    FOR UPDATE
),
rules AS (
    SELECT * FROM unnest(
        %(statuses)s::text [], %(next)s::text [], %(reasons)s::text [], %(announces)s::text [],
        %(codes)s::smallint [], %(bodies)s::text []
    ) AS r (status, next, reason, announces, code, body)
),
decided AS (
    SELECT
        target.*, rules.next, rules.announces, rules.code,
        CASE
            WHEN target.status = 'Refunding' AND target.status_reason = 'RefundDeclined'
                THEN %(declined)s
            ELSE rules.body
        END AS body,
        'CancelledBy' || initcap(target.actor) AS why,
        coalesce(rules.reason, 'CancelledBy' || initcap(target.actor)) AS reason,
        target.status = 'Completed'
        AND coalesce(target.completed_at, target.updated_at)
        < now() - make_interval(secs => %(window_s)s) AS late,
        rules.code = 202 AND NOT (target.status = 'Charging' AND target.cancel_requested) AS changes
    FROM target
    LEFT JOIN rules ON target.status = rules.status
),
accepted AS (
    SELECT *, version + changes::integer AS next_version FROM decided
    WHERE code IS NOT NULL AND NOT late
),
once AS (
    INSERT INTO idempotency_keys AS known
        (principal, route, key, fingerprint, status, body, location, etag, expires_at)
    SELECT
        coalesce(%(principal)s, 'user:' || user_id), %(route)s, %(key)s, %(fingerprint)s, code,
        format(body, id), format(%(location)s, id), format(%(etag)s, next_version),
        now() + interval '24 hours'
    FROM accepted
    WHERE %(key)s::text IS NOT NULL
    ON CONFLICT (principal, route, key) DO UPDATE SET
        fingerprint = excluded.fingerprint, body = excluded.body, location = excluded.location,
        etag = excluded.etag, status = excluded.status, expires_at = excluded.expires_at
    WHERE known.expires_at <= now()
    RETURNING 1
),
moved AS (
    UPDATE orders SET
        status = accepted.next,
        status_reason = CASE WHEN accepted.next <> 'Charging' THEN accepted.why END,
        cancel_requested = true,
        cancelled_by = accepted.actor,
        -- A reservation may be on its way to Inventory, which has to be told to refuse it.
        reservation = CASE
            WHEN accepted.status = 'Pending' THEN 'held' ELSE orders.reservation
        END,
        reservation_key = CASE
            WHEN accepted.status = 'Pending' THEN coalesce(accepted.nonce::text, accepted.id::text)
            ELSE orders.reservation_key
        END,
        version = accepted.next_version,
        updated_at = now(),
        emitted_at = now()
    FROM accepted
    WHERE orders.id = accepted.id AND accepted.changes
    AND (%(key)s::text IS NULL OR EXISTS (SELECT FROM once))
    RETURNING
        orders.id, orders.user_id, orders.product_id, orders.quantity, orders.total, orders.status,
        orders.version, orders.created_at, orders.updated_at, orders.status_reason,
        orders.cancel_requested, orders.refunded
),
recorded AS (
    INSERT INTO order_history
        (order_id, version, from_status, to_status, reason, note, actor, trace_id)
    SELECT
        accepted.id, accepted.next_version, accepted.status, accepted.next, accepted.reason,
        %(note)s, accepted.actor, %(trace_id)s
    FROM moved INNER JOIN accepted ON moved.id = accepted.id
),
announced AS (
    INSERT INTO outbox (aggregateid, type, payload, correlation_id, traceparent)
    SELECT
        accepted.id::text, accepted.announces,
        jsonb_build_object(
            'orderId', accepted.id, 'version', accepted.next_version, 'status', accepted.next,
            'reason', accepted.why
        ),
        %(correlation_id)s, %(traceparent)s
    FROM moved INNER JOIN accepted ON moved.id = accepted.id
    WHERE accepted.announces IS NOT NULL
    RETURNING 1
),
latest AS (
    SELECT * FROM moved
    UNION ALL
    SELECT
        id, user_id, product_id, quantity, total, status, version, created_at, updated_at,
        status_reason, cancel_requested, refunded
    FROM target
    WHERE NOT EXISTS (SELECT FROM moved)
)
SELECT
    latest.id, latest.user_id, latest.product_id, latest.quantity, latest.total, latest.status,
    latest.version, latest.created_at, latest.updated_at, latest.status_reason,
    latest.cancel_requested, nullif(latest.refunded, 0) AS refunded,
    decided.code, decided.body, decided.late,
    %(key)s::text IS NULL OR EXISTS (SELECT FROM once) AS answered,
    EXISTS (SELECT FROM moved) AS changed,
    EXISTS (SELECT FROM announced) AND (SELECT idle FROM relay_wakeup) AS relay_sleeps
FROM latest INNER JOIN decided ON latest.id = decided.id
