"""The gateway: nginx with a strict configuration, rendered from a template."""
