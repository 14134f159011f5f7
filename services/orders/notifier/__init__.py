"""The consumer of order-notifications: sends a webhook for each event that customers hear of."""
