"""PgBouncer from Debian's package, unpacked into the user's cache."""

from devstack.packages.release import Release

RELEASE = Release("pgbouncer", 1, ("pgbouncer",), r"lib.*", "pgbouncer")
