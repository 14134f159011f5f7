-- All that is known of one order, as one JSON document: the order, its payment attempts, its notifications.
SELECT jsonb_build_object(
    'order', (
        SELECT jsonb_build_object(
            'id', o.id, 'status', o.status, 'reason', o.status_reason, 'version', o.version,
            'productId', o.product_id, 'quantity', o.quantity, 'total', o.total,
            'refunded', o.refunded, 'refundRequested', o.refund_requested,
            'reservation', o.reservation, 'updatedAt', o.updated_at
        )
        FROM orders AS o
        WHERE o.id = %(id)s
    ),
    'attempts', coalesce((
        SELECT jsonb_agg(jsonb_build_object(
            'id', a.id, 'kind', a.kind, 'amount', a.amount, 'outcome', a.outcome,
            -- A person paid back past Payment, whose ledger will never have it.
            'elsewhere', coalesce((
                SELECT max((p.detail ->> 'elsewhere')::numeric) FROM operator_actions AS p
                WHERE p.subject = 'order ' || %(id)s::text
                AND p.detail ->> 'attempt' = a.id::text
            ), 0)
        ) ORDER BY a.created_at)
        FROM (
            SELECT id, kind, amount, outcome, created_at FROM payment_attempts
            WHERE order_id = %(id)s AND kind = 'capture' AND outcome IN ('unknown', 'approved')
            UNION ALL
            SELECT id, kind, amount, outcome, created_at FROM payment_attempts
            WHERE order_id = %(id)s AND kind = 'capture' AND outcome = 'declined'
            UNION ALL
            SELECT id, kind, amount, outcome, created_at FROM payment_attempts
            WHERE order_id = %(id)s AND kind = 'refund'
        ) AS a
    ), '[]'),
    'notified', coalesce((
        SELECT jsonb_agg(template ORDER BY template) FROM notifications
        WHERE order_id = %(id)s AND sent_at IS NOT NULL
    ), '[]'),
    'now', now()
)::text
