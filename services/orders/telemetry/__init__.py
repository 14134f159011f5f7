"""What the processes say about themselves: logs, metrics, traces, and the ids that join them."""
