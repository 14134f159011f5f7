-- Orders that cannot be judged yet: taken after the one that a run ends with, under way, or with a difference
-- that may still disappear by itself.
SELECT
    (SELECT count(*) FROM orders WHERE id > %(after)s)
    + (
        SELECT count(DISTINCT order_id) FROM reconciliation_cases
        WHERE NOT violation AND NOT accepted AND order_id <= %(after)s
        AND kind NOT IN ('suspect', 'notification_missing')
    )
