UPDATE reconciliation SET started_at = now() RETURNING started_at
