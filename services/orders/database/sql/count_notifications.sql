-- Notifications that wait for a further try (counted up to 100,000), how long the oldest of them has, and
-- those that were given up and not sent again since.
SELECT
    (
        SELECT count(*) FROM (
            SELECT FROM notifications
            WHERE sent_at IS NULL AND ended_at IS NULL
            LIMIT 100000
        ) AS counted
    ),
    coalesce(
        (
            SELECT extract(epoch FROM now() - min(queued_at)) FROM notifications
            WHERE sent_at IS NULL AND ended_at IS NULL
        ),
        0
    )::float,
    (SELECT count(*) FROM notifications WHERE ended_at IS NOT NULL AND outcome = 'given_up')
