-- All that `orders migrate` can change about privileges in the schema.
SELECT c.relname, '', x.grantee, x.privilege_type
FROM pg_class AS c CROSS JOIN aclexplode(c.relacl) AS x
WHERE c.relnamespace = current_schema::regnamespace
UNION ALL
SELECT c.relname, a.attname, x.grantee, x.privilege_type
FROM pg_class AS c
INNER JOIN pg_attribute AS a ON a.attrelid = c.oid
CROSS JOIN aclexplode(a.attacl) AS x
WHERE c.relnamespace = current_schema::regnamespace
UNION ALL
SELECT n.nspname, '', x.grantee, x.privilege_type
FROM pg_namespace AS n CROSS JOIN aclexplode(n.nspacl) AS x
WHERE n.nspname = current_schema
UNION ALL
SELECT p.proname, concat(p.prosecdef, p.proconfig, p.proacl), 0, ''
FROM pg_proc AS p
WHERE p.pronamespace = current_schema::regnamespace
