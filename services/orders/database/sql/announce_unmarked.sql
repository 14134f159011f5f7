-- Have all lists read on the primary for 2 × keep_s; written once for all who announce within keep_s / 2.
-- Not waited for on disk or on a standby: what it is about is lost together with it.
WITH hasty AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true))
UPDATE unmarked_writes
SET until = now() + 2 * make_interval(secs => %(keep_s)s)
FROM hasty
WHERE until < now() + 1.5 * make_interval(secs => %(keep_s)s)
