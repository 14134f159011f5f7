-- depends: 0002_cancellation
-- transactional: false
-- Scans whole tables without holding up reads or writes, so it must run outside of a transaction. It may
-- end half-way; then all of it runs again, and each index begins with the removal of what is left of it.

ALTER TABLE orders VALIDATE CONSTRAINT orders_refunds_check;

ALTER TABLE orders VALIDATE CONSTRAINT orders_reservation_check;

-- At most one capture that may have taken money. It takes over from payment_attempts_live, which also
-- allowed one refund only.
DROP INDEX CONCURRENTLY IF EXISTS payment_attempts_capture;

CREATE UNIQUE INDEX CONCURRENTLY payment_attempts_capture ON payment_attempts (order_id)
WHERE kind = 'capture' AND outcome IN ('unknown', 'approved');

-- Refunds are numbered: two requests at once cannot both become the next one.
DROP INDEX CONCURRENTLY IF EXISTS payment_attempts_refund;

CREATE UNIQUE INDEX CONCURRENTLY payment_attempts_refund ON payment_attempts (order_id, number)
WHERE kind = 'refund';

DROP INDEX CONCURRENTLY IF EXISTS payment_attempts_live;

-- Ended orders that still owe something: stock to settle, stock to return, a refund whose outcome is not
-- known. It takes over from orders_stock_held, whose rows it includes.
DROP INDEX CONCURRENTLY IF EXISTS orders_owing;

CREATE INDEX CONCURRENTLY orders_owing ON orders (emitted_at)
WHERE status IN ('Completed', 'Failed', 'Cancelled', 'Refunded') AND (
    reservation = 'held'
    OR refunded < refund_requested
    OR (reservation = 'committed' AND status = 'Refunded')
);

DROP INDEX CONCURRENTLY IF EXISTS orders_stock_held;
