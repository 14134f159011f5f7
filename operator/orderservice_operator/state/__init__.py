"""What live objects say, and what follows for plan, roll-back and status. Pure."""
