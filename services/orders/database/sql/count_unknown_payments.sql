-- Payment attempts whose outcome nobody knows, older than a call may take.
SELECT count(*) FROM payment_attempts
WHERE outcome = 'unknown' AND created_at < now() - interval '15 seconds'
