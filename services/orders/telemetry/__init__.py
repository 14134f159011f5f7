"""Logs, metrics and traces of the processes, and the ids that join them."""
