DROP INDEX CONCURRENTLY IF EXISTS payment_attempts_refund_declined;
