"""Stand-ins for the external services, for local runs, tests, kind and load tests only.

Inventory, Payment and a webhook receiver, each with scripted faults and a ledger of what it really
did, so that a test can compare that with what the order service believes.
"""
