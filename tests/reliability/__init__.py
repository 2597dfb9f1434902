"""Faults, load and hostile timing against a real process; every test ends with the ledger check."""
