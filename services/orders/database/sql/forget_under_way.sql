DELETE FROM reconciliation_cases
WHERE kind = 'under_way' AND order_id = ANY (%(orders)s::bigint [])
