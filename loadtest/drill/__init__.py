"""Alerts made to fire for real: `make alerts-drill` breaks a stack, one fault after the other."""
