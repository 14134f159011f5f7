"""`orderctl`, also `kubectl orderservice`: everyday commands for OrderServices besides `apply`."""
