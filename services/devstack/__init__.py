"""Run the whole order platform on this machine: embedded servers, the services and a gateway."""
