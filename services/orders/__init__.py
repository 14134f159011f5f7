"""The order service: one package, one image; `orders <process>` chooses what runs."""
