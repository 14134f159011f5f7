"""The bounds of the histograms, in a module that declares no metric."""

from typing import Final

# Seconds. OpenTelemetry's buckets for HTTP durations, and 0.3 because an SLO is stated at it.
HTTP_BUCKETS: Final = (
    0.005,
    0.01,
    0.025,
    0.05,
    0.075,
    0.1,
    0.25,
    0.3,
    0.5,
    0.75,
    1,
    2.5,
    5,
    7.5,
    10,
)
# Seconds. From one hop in an idle system to the last retry tier.
COMPLETION_BUCKETS: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
