"""The HTTP API: one file per resource, and one per step of every request."""
