"""Load tests that decide: scenarios as data, Locust as the driver, verdicts by exit code."""
