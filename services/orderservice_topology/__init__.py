"""RabbitMQ's topology, and what a broker lacks of it. Pure, without I/O.

The package also has the rights of each process in RabbitMQ and in Redis. The order service (`orders
topology apply`), the operator and the local stack import it; it imports none of them.
"""
