"""The API external.metrics.k8s.io, served by the operator: queue lengths for autoscalers."""
