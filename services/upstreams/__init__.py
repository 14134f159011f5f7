"""Stand-ins for the external services, for local runs, tests, kind and load tests only.

Inventory, Payment and a webhook receiver, each with scripted faults and a ledger of what it really
did. A test compares the ledger with what the order service believes.
"""
