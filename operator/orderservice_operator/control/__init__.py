"""How the operator runs: start and stop, the queue, the reconcile, the finalizer, probes."""
