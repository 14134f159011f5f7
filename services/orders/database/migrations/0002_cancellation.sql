-- depends: 0001_orders
-- transactional: false
-- What cancelling and paying back need. Nothing here reads or rewrites existing rows, and release N-1 goes on
-- working: every column has a default or may be null. Each statement commits by itself, so that a table is
-- locked for that statement only, not until the slowest of them has come and gone. All of it runs again
-- after a failure.

-- A statement that waits for its lock makes all traffic wait behind it: not for long.
RESET lock_timeout;

ALTER TABLE orders
    -- Keys given to Payment and Inventory derive from it, never from the id: a failover can lose an
    -- order and issue its id again. Null in orders accepted before this migration, or beside release N-1.
    ADD COLUMN IF NOT EXISTS nonce uuid,
    -- The key of the reservation that Inventory holds; null: none yet, or made by release N-1 under the
    -- order's id.
    ADD COLUMN IF NOT EXISTS reservation_key text,
    -- Who asked for the cancellation: `customer`, `support` or `operator:<name>`.
    ADD COLUMN IF NOT EXISTS cancelled_by text,
    -- When the order was paid; null in orders that release N-1 completed: `updated_at` says it there.
    ADD COLUMN IF NOT EXISTS completed_at timestamptz,
    -- The sum of refunds that were made or may have been made; it guards the sum of several refunds.
    ADD COLUMN IF NOT EXISTS refund_requested numeric(10, 2) NOT NULL DEFAULT 0,
    -- The sum of refunds that Payment confirmed.
    ADD COLUMN IF NOT EXISTS refunded numeric(10, 2) NOT NULL DEFAULT 0,
    DROP CONSTRAINT IF EXISTS orders_refunds_check,
    ADD CONSTRAINT orders_refunds_check CHECK (
        refunded >= 0 AND refunded <= refund_requested AND refund_requested <= total
    ) NOT VALID,
    DROP CONSTRAINT IF EXISTS orders_reservation_check,
    ADD CONSTRAINT orders_reservation_check
    CHECK (reservation IN ('none', 'held', 'committed', 'released', 'returned')) NOT VALID;

-- Apart from ADD COLUMN, which would write a value into every existing row. Release N-1 knows a reservation
-- by the order's id only, so both releases must use that as long as both run: orders of this day have no
-- nonce. Where nobody has ordered yet, nothing of release N-1 runs.
DO $$
BEGIN
    IF EXISTS (SELECT FROM orders) THEN
        EXECUTE 'ALTER TABLE orders ALTER COLUMN nonce SET DEFAULT CASE WHEN now() >= '
            || quote_literal(now() + interval '1 day')
            || '::timestamptz THEN gen_random_uuid() END';
    ELSE
        ALTER TABLE orders ALTER COLUMN nonce SET DEFAULT gen_random_uuid();
    END IF;
END
$$;

ALTER TABLE order_history
    -- What the person who asked gave as the reason.
    ADD COLUMN IF NOT EXISTS note text,
    DROP CONSTRAINT IF EXISTS order_history_note_check,
    ADD CONSTRAINT order_history_note_check CHECK (length(note) <= 200) NOT VALID;

ALTER TABLE payment_attempts
    -- Its id is the UUIDv5 of the order's nonce, kind and number.
    ADD COLUMN IF NOT EXISTS number integer NOT NULL DEFAULT 1,
    -- Why it was declined or how it was settled: a machine-readable word.
    ADD COLUMN IF NOT EXISTS reason text,
    -- Who caused it: `worker`, `customer`, `support` or `operator:<name>`; and under which login.
    ADD COLUMN IF NOT EXISTS actor text,
    ADD COLUMN IF NOT EXISTS requested_by text,
    ADD COLUMN IF NOT EXISTS note text,
    DROP CONSTRAINT IF EXISTS payment_attempts_number_check,
    ADD CONSTRAINT payment_attempts_number_check CHECK (number > 0) NOT VALID,
    DROP CONSTRAINT IF EXISTS payment_attempts_texts_check,
    ADD CONSTRAINT payment_attempts_texts_check
    CHECK (length(reason) <= 64 AND length(note) <= 200) NOT VALID;
