"""Generates the dashboards with Grafana's own library; only needed to change them."""
