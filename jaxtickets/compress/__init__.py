"""Structured compression: pruned nets become smaller nets. Also sparse forms of masked layers."""
