"""RabbitMQ's topology: what has to exist, and what a broker lacks of it. Pure, without I/O.

The order service (`orders topology apply`) and the operator both import it; it imports neither.
"""
