-- The oldest outbox rows of a selection, in order. PostgreSQL hashes NOT IN (SELECT …) once; the
-- primary key gives the order without a sort.
SELECT
    seq, id::text, aggregateid, type, payload::text, correlation_id, traceparent,
    extract(epoch FROM created_at)::float
FROM outbox
WHERE
    seq > %(after)s
    AND seq NOT IN (SELECT unnest(%(under_way)s::bigint []))
    AND (%(only)s::text [] IS NULL OR type = ANY(%(only)s))
    AND type <> ALL(%(excluded_types)s::text [])
    AND (aggregateid, type) NOT IN (
        SELECT * FROM unnest(%(held)s::text [], %(held_types)s::text [])
    )
ORDER BY seq
LIMIT %(limit)s
