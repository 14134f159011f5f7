INSERT INTO operator_actions (actor, action, subject, because, detail)
VALUES (%(actor)s, %(action)s, %(subject)s, %(because)s, %(detail)s::jsonb)
