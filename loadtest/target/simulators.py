"""Steer the simulators of Inventory and Payment, and read their ledgers."""

from collections.abc import Mapping

from loadtest.books import Payment, Reservation
from loadtest.target import http


def set_faults(simulator: str, faults: Mapping[str, float]) -> None:
    """Let a simulator misbehave; nothing given: behave."""
    http.put(f"{simulator}/control/faults", dict(faults))


def set_stock(inventory: str, stock: Mapping[int, int]) -> None:
    """Set the units that may still be sold."""
    for product, units in stock.items():
        http.put(f"{inventory}/control/stock/{product}", {"available": units})


def payments(payment: str) -> list[Payment]:
    """Read every capture and refund."""
    return http.get(f"{payment}/control/ledger", list[Payment])


def reservations(inventory: str) -> list[Reservation]:
    """Read every reservation from Inventory's ledger."""
    return http.get(f"{inventory}/control/ledger", list[Reservation])
