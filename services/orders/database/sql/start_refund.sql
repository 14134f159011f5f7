-- Writes the attempt that pays an order in Refunding back, and adds it to what was asked back, which
-- guards the sum. The version stays: no client sees a difference yet.
WITH due AS (
    UPDATE orders SET
        refund_requested = refund_requested + %(amount)s,
        emitted_at = now()
    WHERE id = %(id)s AND version = %(version)s AND status = 'Refunding'
    AND refund_requested = %(requested)s
    RETURNING id
)
INSERT INTO payment_attempts (id, order_id, kind, amount, number, actor)
SELECT %(attempt)s, id, 'refund', %(amount)s, %(number)s, %(actor)s FROM due
RETURNING id
