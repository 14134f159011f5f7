-- settle_stock for several orders at once. Rows that others lock are left out, as in advance_orders.
WITH step AS MATERIALIZED (
    SELECT * FROM json_to_recordset(%(steps)s::json) AS step (
        id bigint, version integer, before text, reservation text, message_id uuid
    )
),
locked AS MATERIALIZED (
    SELECT orders.id FROM orders
    WHERE orders.id IN (SELECT step.id FROM step)
    ORDER BY orders.id
    FOR NO KEY UPDATE SKIP LOCKED
),
settled AS (
    UPDATE orders AS o SET reservation = step.reservation
    FROM step
    JOIN locked ON locked.id = step.id
    WHERE o.id = step.id AND o.version = step.version AND o.reservation = step.before
    RETURNING o.id
),
processed AS (
    INSERT INTO processed_messages (consumer, message_id)
    SELECT %(consumer)s, step.message_id
    FROM settled JOIN step ON step.id = settled.id
    ORDER BY step.message_id
    ON CONFLICT DO NOTHING
)
SELECT id FROM settled
