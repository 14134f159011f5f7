"""The children of a resource in Kubernetes: one pure builder for each kind."""
