-- Payment attempts whose outcome is unknown, older than a call may take, and the age of the oldest.
SELECT count(*), greatest(extract(epoch FROM now() - min(created_at)), 0)::float
FROM payment_attempts
WHERE outcome = 'unknown' AND created_at < now() - interval '15 seconds'
