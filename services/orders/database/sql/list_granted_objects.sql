-- The tables and sequences of ours on which roles hold privileges. Those of others are not ours to revoke.
SELECT CASE c.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, c.relname, r.rolname
FROM pg_class AS c CROSS JOIN pg_roles AS r
WHERE r.rolname = ANY (%(roles)s)
AND c.relnamespace = current_schema::regnamespace AND pg_has_role(c.relowner, 'USAGE')
AND (
    EXISTS (SELECT FROM aclexplode(c.relacl) AS x WHERE x.grantee = r.oid)
    OR EXISTS (
        SELECT FROM pg_attribute AS a CROSS JOIN aclexplode(a.attacl) AS x
        WHERE a.attrelid = c.oid AND x.grantee = r.oid
    )
)
