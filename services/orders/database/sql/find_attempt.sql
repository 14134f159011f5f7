-- A payment attempt, and the ids that its order's messages carry.
SELECT a.order_id, a.kind, a.amount, a.outcome, o.correlation_id, o.traceparent
FROM payment_attempts AS a
INNER JOIN orders AS o ON o.id = a.order_id
WHERE a.id = %(id)s
