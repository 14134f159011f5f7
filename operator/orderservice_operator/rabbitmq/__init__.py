"""RabbitMQ: the topology as data, and its application to a broker."""
