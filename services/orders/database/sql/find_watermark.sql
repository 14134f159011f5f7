SELECT payments_at, stock_at, order_id FROM reconciliation
