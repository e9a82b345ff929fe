"""The network itself becomes smaller."""
