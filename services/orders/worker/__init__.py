"""The consumer of order-processing: brings orders to their end, finds those that stall."""
