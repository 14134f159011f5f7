"""The check of stock at admission: 300 ms at most, cached for a second."""

import time

import aiohttp
import msgspec

_TTL_S = 1.0
_BUDGET_S = 0.3


class Stock:
    """Queries a product at most once a second in each process."""

    def __init__(self, url: str) -> None:
        timeout = aiohttp.ClientTimeout(total=_BUDGET_S)
        self._session = aiohttp.ClientSession(url, timeout=timeout)
        self._known: dict[int, tuple[float, int | None]] = {}

    async def close(self) -> None:
        """Close the connections to Inventory."""
        await self._session.close()

    async def insufficient(self, product_id: int, quantity: int) -> bool:
        """Return whether the stock is known to be too small; False if it is unknown."""
        until_s, available = self._known.get(product_id, (0.0, None))
        if time.monotonic() >= until_s:
            available = await self._ask(product_id)
            self._known[product_id] = time.monotonic() + _TTL_S, available
        return available is not None and available < quantity

    async def _ask(self, product_id: int) -> int | None:
        try:
            async with self._session.get(f"/availability/{product_id}?quantity=1") as answer:
                answer.raise_for_status()
                return int(msgspec.json.decode(await answer.read())["available"])
        except (aiohttp.ClientError, TimeoutError):
            return None
