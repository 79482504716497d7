"""Small programs in the style of Pyro5's examples, written for stock Pyro5.

Each prints what its client sees. The tests run them as they are, and once more with nothing but
the one line of imports changed.
"""
