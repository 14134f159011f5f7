-- Indexes of ours that a failed build left. Names with this ending belong to a REINDEX of another user.
SELECT i.indexrelid::regclass::text
FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
WHERE NOT i.indisvalid AND c.relnamespace = current_schema::regnamespace
AND c.relname !~ '_cc(new|old)\d*$'
