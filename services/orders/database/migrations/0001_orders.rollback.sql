DROP TABLE notifications, payment_attempts, idempotency_keys, processed_messages,
    relay_wakeup, outbox, order_history, orders;
