-- The stored answer of an idempotency key that is still in force.
SELECT fingerprint, status, body, location, etag
FROM idempotency_keys
WHERE principal = %(principal)s AND route = %(route)s AND key = %(key)s AND expires_at > now()
