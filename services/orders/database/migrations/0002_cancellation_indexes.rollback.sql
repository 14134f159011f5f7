-- Fails while an order has several refunds that moved money: release N-1 knows one at most.
CREATE INDEX CONCURRENTLY IF NOT EXISTS orders_stock_held ON orders (emitted_at)
WHERE reservation = 'held' AND status IN ('Completed', 'Failed', 'Cancelled', 'Refunded');

CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS payment_attempts_live
ON payment_attempts (order_id, kind) WHERE outcome IN ('unknown', 'approved');

DROP INDEX CONCURRENTLY IF EXISTS orders_owing;

DROP INDEX CONCURRENTLY IF EXISTS payment_attempts_refund;

DROP INDEX CONCURRENTLY IF EXISTS payment_attempts_capture;
