"""The state of live objects, and the plan, roll-back and status that follow from it. Pure."""
