SELECT rolname FROM pg_roles WHERE rolname = ANY (%(roles)s)
