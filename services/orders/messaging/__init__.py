"""RabbitMQ: topology, messages, publishing, consuming, dead letters."""
