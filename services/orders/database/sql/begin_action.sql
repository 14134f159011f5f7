INSERT INTO operator_actions (actor, action, subject, because)
VALUES (%(actor)s, %(action)s, %(subject)s, %(because)s)
RETURNING id
