"""The target of the load: a separate local stack, or a running service."""
