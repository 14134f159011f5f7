SELECT order_id, kind, detail, seen_at FROM reconciliation_cases
WHERE violation AND NOT accepted
ORDER BY seen_at, order_id, kind
LIMIT %(limit)s
