"""Bugs put into the real system from outside, to prove that the checkers would find them."""

from rmi_torture.planted.table import BUGS, Bug, plant

__all__ = ["BUGS", "Bug", "plant"]
