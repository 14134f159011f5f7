"""The custom resource as types, the one source of its definition, defaults and decoding."""
