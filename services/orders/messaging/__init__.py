"""RabbitMQ: what exists there, what a message looks like, publishing, consuming, dead letters."""
