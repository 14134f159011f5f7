"""What is put under load: a local stack of our own, or a service that runs already."""
