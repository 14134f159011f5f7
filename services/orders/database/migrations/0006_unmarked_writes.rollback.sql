DROP TABLE unmarked_writes;
