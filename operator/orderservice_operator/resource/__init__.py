"""The custom resource as types: the one source of the CRD, of its defaults and of what is read."""
