"""Puts the worker together: the one place that knows all of its parts."""

from collections.abc import Mapping

from orders import settings
from orders.cache.orders import OrderCache
from orders.database.leadership import HOUSEKEEPING, Leadership
from orders.database.orders import Progress
from orders.database.pool import Pool
from orders.database.routing import ReplicaLag
from orders.messaging.consumer import Consumer
from orders.process import Check, running
from orders.upstream.http import Upstream
from orders.upstream.inventory import Inventory
from orders.upstream.payment import Payment
from orders.worker.collector import Collector
from orders.worker.fulfilment import Fulfilment, Ports
from orders.worker.housekeeping import Housekeeping
