"""Draws the dashboards with Grafana's own library; only needed where they are changed."""
