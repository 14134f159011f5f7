"""Commands that compare the orders with the ledgers of others, and settle open cases."""
