-- The number of rows in the outbox, counted up to 100,000, and the age of the oldest. The age of a row
-- that fits no message may be unknown: infinite.
SELECT
    (SELECT count(*) FROM (SELECT FROM outbox LIMIT 100000) AS counted),
    coalesce(
        (
            SELECT CASE
                WHEN isfinite(created_at)
                    THEN extract(epoch FROM clock_timestamp() - created_at)::float
                ELSE 'infinity'
            END
            FROM outbox ORDER BY seq LIMIT 1
        ),
        0
    )
