"""Every feature of Pyro5, tried between stock and ours in every direction that makes sense.

``python -m tests.compat`` runs it and prints the table; pytest runs the same rows.
"""
