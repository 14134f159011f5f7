-- It writes notifications beside the outbox row of the api or the worker, neither of which may: so it runs as
-- its owner. Not in a migration, because another migration that replaces the function would undo it.
ALTER FUNCTION queue_notification() SECURITY DEFINER SET search_path FROM CURRENT
