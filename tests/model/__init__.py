"""The model of an order's life, checked with TLC: `make model` (docs/model/README.md)."""
