"""Hostile requests against the apis and gateways of a separate stack: `make attack`."""
