"""Commands that compare orders with the ledgers of Payment and Inventory, and settle open cases."""
