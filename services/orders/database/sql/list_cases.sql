-- Orders that were odd before, those not looked at for longest first.
SELECT order_id FROM reconciliation_cases
WHERE kind NOT IN ('under_way', 'notification_missing') AND NOT accepted
GROUP BY order_id
ORDER BY min(checked_at), order_id
LIMIT %(limit)s
