UPDATE reconciliation SET
    payments_at = greatest(payments_at, %(payments_at)s::timestamptz),
    stock_at = greatest(stock_at, %(stock_at)s::timestamptz),
    order_id = %(order_id)s,
    succeeded_at = CASE WHEN %(done)s THEN now() ELSE succeeded_at END
