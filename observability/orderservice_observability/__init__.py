"""Prometheus rules from a service's objectives, and its dashboards. Pure; imports no other part.

Both the plain files of `observability/` and the operator's children come from here.
"""
