"""Calls to the external services: Inventory and Payment, by contract and within limits."""
