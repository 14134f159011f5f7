"""Prometheus rules from a service's objectives, and its dashboards: pure data, no other part known.

The plain files of `observability/` and the operator's children are both made here.
"""
