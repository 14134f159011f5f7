"""What runs inside Locust: customers, the shape, and what workers tell the master."""
