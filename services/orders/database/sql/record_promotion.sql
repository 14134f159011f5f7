-- Returns no row if another process has recorded the promotion.
INSERT INTO promotions (system_identifier, timeline, skipped)
VALUES (%(system)s, %(timeline)s, %(skip)s)
ON CONFLICT DO NOTHING RETURNING true
