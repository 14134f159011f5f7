-- depends: 0001_orders
-- Until when lists are read on the primary, because a process could not mark its writers in Redis.

CREATE TABLE unmarked_writes (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    until timestamptz NOT NULL
) WITH (fillfactor = 10);
INSERT INTO unmarked_writes (until) VALUES ('-infinity');
