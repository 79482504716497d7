"""Fault injection: real processes, real faults, recorded histories, independent checkers."""
