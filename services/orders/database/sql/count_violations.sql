-- What reconciliation found, by kind, and when it last came to its end.
SELECT
    (SELECT extract(epoch FROM succeeded_at)::float FROM reconciliation) AS succeeded_at_s,
    coalesce((
        SELECT jsonb_object_agg(kind, cases) FROM (
            SELECT kind, count(*) AS cases FROM reconciliation_cases
            WHERE violation AND NOT accepted
            GROUP BY kind
        ) AS counted
    ), '{}')::text AS cases
