-- depends: 0002_cancellation_indexes
-- transactional: false
-- Declined refunds that wait for a person are few, and counted every few seconds.
DROP INDEX CONCURRENTLY IF EXISTS payment_attempts_refund_declined;

CREATE INDEX CONCURRENTLY payment_attempts_refund_declined ON payment_attempts (order_id)
WHERE kind = 'refund' AND outcome = 'declined' AND reason = 'RefundDeclined';
