-- Ended orders by status, as the planner knows it.
WITH estimated AS (
    SELECT
        unnest(most_common_vals::text::text []) AS status,
        unnest(most_common_freqs) AS share
    FROM pg_stats
    WHERE schemaname = current_schema AND tablename = 'orders' AND attname = 'status'
)
SELECT status, (share * %(orders)s)::bigint FROM estimated
WHERE status IN ('Completed', 'Failed', 'Cancelled', 'Refunded')
