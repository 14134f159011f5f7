"""Load tests with a verdict: scenarios as data, Locust as the driver, verdicts by exit code."""
