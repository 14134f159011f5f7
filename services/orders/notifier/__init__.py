"""The consumer of order-notifications: sends webhooks when orders end."""
