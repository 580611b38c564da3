"""Databases under a storage, one folder each."""
