"""Code that runs inside Locust: customers, the shape, and the samples of workers."""
