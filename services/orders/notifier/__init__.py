"""The consumer of order-notifications: tells the customer's system how an order ended."""
