"""PostgreSQL, where alone an order is true: one statement a hop, named columns, plain SQL."""
