"""Moves committed outbox rows to RabbitMQ: published, confirmed, then deleted."""
