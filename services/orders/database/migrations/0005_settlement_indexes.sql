-- depends: 0005_settlement 0002_cancellation_indexes
-- transactional: false
-- Declined captures are few, and `orders trace` shows them; the other attempts have their indexes.
DROP INDEX CONCURRENTLY IF EXISTS payment_attempts_declined;

CREATE INDEX CONCURRENTLY payment_attempts_declined ON payment_attempts (order_id)
WHERE kind = 'capture' AND outcome = 'declined';
