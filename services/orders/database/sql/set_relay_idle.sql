-- Ask writers to notify the relay (idle), or not to.
UPDATE relay_wakeup SET idle = %(idle)s WHERE idle <> %(idle)s
