-- depends: 0004_notifications
-- transactional: false
-- Scans the table without holding up reads or writes, so it must run outside of a transaction. It may end
-- half-way; then all of it runs again.

ALTER TABLE notifications VALIDATE CONSTRAINT notifications_outcome_check;

-- What waits: small, because most notifications were sent.
DROP INDEX CONCURRENTLY IF EXISTS notifications_due;

CREATE INDEX CONCURRENTLY notifications_due ON notifications (next_at)
WHERE sent_at IS NULL AND ended_at IS NULL;

-- What ended without having been sent, for people.
DROP INDEX CONCURRENTLY IF EXISTS notifications_ended;

CREATE INDEX CONCURRENTLY notifications_ended ON notifications (ended_at)
WHERE ended_at IS NOT NULL;
