"""What a resource consists of in Kubernetes: one pure builder for each kind of child."""
