"""The code that experiments share: settings, resumable runs, records, tables and figures."""
