"""Write the schema files again."""

from orders.messaging.schemas import write

write()
