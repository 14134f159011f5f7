-- Takes the violations of one order out of the count: a person settled them elsewhere.
UPDATE reconciliation_cases SET accepted = true
WHERE order_id = %(id)s AND violation AND NOT accepted
RETURNING kind, detail
