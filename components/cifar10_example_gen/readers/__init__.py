"""From files and archive members to records: one module a layout, and those they share."""
