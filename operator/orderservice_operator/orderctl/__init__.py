"""`orderctl`, also `kubectl orderservice`: what people do with OrderServices beside `apply`."""
