UPDATE operator_actions SET detail = %(detail)s::jsonb WHERE id = %(id)s
