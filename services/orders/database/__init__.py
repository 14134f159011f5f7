"""PostgreSQL: the one place where an order is true. One statement a hop, named columns, plain SQL."""
