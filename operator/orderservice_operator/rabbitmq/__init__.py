"""RabbitMQ: the topology as data, and making a broker what the data says."""
