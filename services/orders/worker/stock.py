"""The stock of an ended order: committed when it was paid, else given back."""

import msgspec

from orders.database.progress import Progress, Reservation, Work
from orders.domain.lifecycle import Status
from orders.errors import Permanent, Transient
from orders.upstream.inventory import Inventory, Standing
from orders.worker.decisions import target
from orders.worker.refunds import LostCaptures


class Stock:
    """Settles with Inventory what an ended order leaves open."""

    def __init__(
        self, progress: Progress, inventory: Inventory, lost_captures: LostCaptures
    ) -> None:
        self._progress, self._inventory = progress, inventory
        self._lost_captures = lost_captures

    def settle(self, work: Work, message_id: str) -> Work | None:
        """Commit, release or return the stock and note it; None: look at the order again."""
        if not is_open(work):
            self._progress.mark_processed(message_id)
        elif work.order.status is Status.COMPLETED:
            if not self._commit(work, message_id):
                return None
        elif not self._end(work, message_id):
            return None
        return msgspec.structs.replace(work, processed=True)

    def _end(self, work: Work, message_id: str) -> bool:
        """Give the stock back; it stays open in our books until Payment was asked, too."""
        reservation = self._return(work)
        if self._lost_captures.pay_back(work):
            return False
        return self._progress.settle_stock(work, reservation, message_id)

    def _commit(self, work: Work, message_id: str) -> bool:
        standing = self._inventory.commit(target(work))
        if standing is Standing.COMMITTED:
            return self._progress.settle_stock(work, Reservation.COMMITTED, message_id)
        now = self._progress.load(work.order.id, message_id)
        if now is not None and now.order.version == work.order.version:
            raise Permanent(
                f"inventory has the stock of a paid order as {standing}", reason="stock_lost"
            )
        return False  # cancelled meanwhile, and its stock given back by another worker

    def _return(self, work: Work) -> Reservation:
        """Release or return the stock; return its new state for the order."""
        inventory, reservation = self._inventory, target(work)
        committed = work.reservation is Reservation.COMMITTED
        standing = inventory.give_back(reservation) if committed else inventory.release(reservation)
        if standing is Standing.COMMITTED:  # by a worker that came before the cancellation
            standing = inventory.give_back(reservation)
        elif standing is Standing.RESERVED:
            standing = inventory.release(reservation)
        if standing is Standing.RETURNED:
            return Reservation.RETURNED
        if standing is Standing.RELEASED or (standing is Standing.UNKNOWN and not committed):
            return Reservation.RELEASED
        if standing is Standing.UNKNOWN:
            raise Permanent("inventory does not know the stock of a paid order", reason="no_stock")
        raise Transient("the reservation is being moved by others", retry_after_s=1)


def is_open(work: Work) -> bool:
    """Tell whether an ended order's stock is still to be settled."""
    if work.reservation is Reservation.COMMITTED:
        return work.order.status is Status.REFUNDED
    return work.reservation is Reservation.HELD
