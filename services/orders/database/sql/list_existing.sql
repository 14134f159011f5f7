SELECT id FROM orders WHERE id = ANY (%(orders)s::bigint [])
