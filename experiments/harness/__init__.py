"""What experiments share: runs from settings to records, resumable, with tables and figures."""
