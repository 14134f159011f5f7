SELECT
    sequencename,
    setval(
        format('%%I.%%I', schemaname, sequencename)::regclass, coalesce(last_value, 0) + %(skip)s
    )
FROM pg_sequences
WHERE schemaname = current_schema() AND data_type = 'bigint'::regtype
ORDER BY sequencename
