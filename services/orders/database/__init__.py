"""PostgreSQL, the only source of truth for orders: one statement per hop, plain SQL."""
