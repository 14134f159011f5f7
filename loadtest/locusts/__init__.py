"""Code that runs inside Locust: customers, the shape, and the counts of workers."""
