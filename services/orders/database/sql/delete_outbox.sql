-- Delete published rows. The number finds the row by its index. The id is compared because a failover
-- may issue a number again.
DELETE FROM outbox WHERE seq = ANY(%(seqs)s) AND id = ANY(%(ids)s::uuid [])
