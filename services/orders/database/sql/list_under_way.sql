SELECT order_id FROM reconciliation_cases
WHERE kind = 'under_way' AND order_id > %(after)s
ORDER BY order_id
LIMIT %(limit)s
