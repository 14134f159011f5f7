-- About how many orders there are, as the planner knows it.
SELECT greatest(reltuples, 0)::float FROM pg_class WHERE oid = 'orders'::regclass
