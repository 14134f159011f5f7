"""The Kubernetes API: the few requests the operator makes, and a copy of what it watches."""
