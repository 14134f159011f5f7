"""The OrderService operator: reconciles `orders.platform.dev/v1alpha1`, kind OrderService."""
