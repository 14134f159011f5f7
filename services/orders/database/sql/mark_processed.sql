INSERT INTO processed_messages (consumer, message_id)
VALUES (%(consumer)s, %(message_id)s)
ON CONFLICT DO NOTHING
