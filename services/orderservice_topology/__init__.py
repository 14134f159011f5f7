"""RabbitMQ's topology: what has to exist, and what a broker lacks of it. Pure, without I/O.

Also what each process may do in RabbitMQ and in Redis. The order service (`orders topology apply`),
the operator and the local stack import it; it imports none of them.
"""
