"""The HTTP API: one file per resource, one per thing that happens to every request."""
