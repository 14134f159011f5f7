"""The consumer of order-processing: brings an order to its end, and looks after those that stall."""
