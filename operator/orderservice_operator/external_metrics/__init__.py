"""external.metrics.k8s.io, served by the operator itself: how deep a queue is, for autoscalers."""
