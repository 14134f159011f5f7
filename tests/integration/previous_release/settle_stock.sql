-- Notes what became of the stock of an ended order; the message that asked for it is done with it.
WITH settled AS (
    UPDATE orders SET reservation = %(reservation)s
    WHERE id = %(id)s AND reservation = 'held'
)
INSERT INTO processed_messages (consumer, message_id)
SELECT %(consumer)s, %(message_id)s
ON CONFLICT DO NOTHING
