"""The ``rmi`` command: starts the system, keeps it running, asks it, stops it.

up, up_view            the whole system, and what it shows meanwhile
supervisor, plan       which services, in which order; start, restart, stop
zygote, processes      forking service processes, and hearing of them
services               one service each, by hand
status, tokens, accounts, config       questions to the running system
cli, commands           where it begins, and what commands there are
options, failures       what all commands share
"""
