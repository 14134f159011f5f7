-- Everything that is stored about one order, as one JSON document; never the payment method.
SELECT jsonb_build_object(
    'order', (SELECT to_jsonb(o) - 'payment_method' FROM orders AS o WHERE o.id = %(id)s),
    'history', coalesce((
        SELECT jsonb_agg(to_jsonb(h) ORDER BY h.version) FROM order_history AS h
        WHERE h.order_id = %(id)s
    ), '[]'),
    'attempts', coalesce((
        SELECT jsonb_agg(a.facts ORDER BY a.facts ->> 'created_at') FROM (
            SELECT to_jsonb(c) AS facts FROM payment_attempts AS c
            WHERE c.order_id = %(id)s AND c.kind = 'capture' AND c.outcome IN ('unknown', 'approved')
            UNION ALL
            SELECT to_jsonb(d) FROM payment_attempts AS d
            WHERE d.order_id = %(id)s AND d.kind = 'capture' AND d.outcome = 'declined'
            UNION ALL
            SELECT to_jsonb(r) FROM payment_attempts AS r
            WHERE r.order_id = %(id)s AND r.kind = 'refund'
        ) AS a
    ), '[]'),
    'notifications', coalesce((
        SELECT jsonb_agg(to_jsonb(n) ORDER BY n.created_at) FROM notifications AS n
        WHERE n.order_id = %(id)s
    ), '[]'),
    'outbox', coalesce((
        SELECT jsonb_agg(jsonb_build_object(
            'id', b.id, 'type', b.type, 'created_at', b.created_at
        ) ORDER BY b.seq)
        FROM outbox AS b
        WHERE b.aggregateid = %(id)s::text
    ), '[]'),
    'stalled', (SELECT to_jsonb(s) FROM stalled_orders AS s WHERE s.order_id = %(id)s),
    'cases', coalesce((
        SELECT jsonb_agg(to_jsonb(c) ORDER BY c.seen_at) FROM reconciliation_cases AS c
        WHERE c.order_id = %(id)s AND c.kind <> 'under_way'
    ), '[]'),
    'actions', coalesce((
        SELECT jsonb_agg(to_jsonb(p) ORDER BY p.at) FROM operator_actions AS p
        WHERE p.subject = 'order ' || %(id)s::text
    ), '[]')
)::text
