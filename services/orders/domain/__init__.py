"""What an order is and how it may change: pure data and rules, no input or output."""
