-- Notes what became of the stock of an ended order, if the order still is where the caller saw it
-- (compare and set): a cancellation may have come since. The message that asked for it is done with.
WITH settled AS (
    UPDATE orders SET reservation = %(reservation)s
    WHERE id = %(id)s AND version = %(version)s AND reservation = %(before)s
    RETURNING id
),
processed AS (
    INSERT INTO processed_messages (consumer, message_id)
    SELECT %(consumer)s, %(message_id)s FROM settled
    ON CONFLICT DO NOTHING
)
SELECT id FROM settled
