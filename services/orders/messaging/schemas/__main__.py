"""Write the schema files anew."""

from orders.messaging.schemas import write

write()
