"""The order service: one package, one image; `orders <process>` chooses what runs."""

from orders.imports import without

# Tracebacks are plain, rich would only be imported; before any other module imports structlog.
with without("rich"):
    import structlog  # noqa: F401 imported to be there
