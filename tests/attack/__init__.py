"""Hostile requests against apis and gateways of a stack of its own: `make attack`."""
