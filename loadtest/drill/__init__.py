"""`make alerts-drill`: breaks a stack, fault by fault, and shows which alerts fire."""
