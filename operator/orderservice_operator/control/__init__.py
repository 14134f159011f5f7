"""The running operator: start and stop, queue, reconciliation, finalizer, probes."""
