ALTER TABLE payment_attempts
DROP COLUMN number, DROP COLUMN reason, DROP COLUMN actor, DROP COLUMN requested_by, DROP COLUMN note;

ALTER TABLE order_history DROP COLUMN note;

ALTER TABLE orders
    DROP COLUMN nonce, DROP COLUMN reservation_key, DROP COLUMN cancelled_by, DROP COLUMN completed_at,
    DROP COLUMN refund_requested, DROP COLUMN refunded,
    DROP CONSTRAINT orders_reservation_check,
    ADD CONSTRAINT orders_reservation_check
    CHECK (reservation IN ('none', 'held', 'committed', 'released')) NOT VALID;
