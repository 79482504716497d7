"""Two banks with exceptions of their own, and SQLite that stays in one thread."""

import sqlite3
import threading

from Pyro5.api import (
    Daemon,
    Proxy,
    behavior,
    expose,
    register_class_to_dict,
    register_dict_to_class,
)


class BankError(Exception):
    """The bank says no."""


register_class_to_dict(
    BankError, lambda error: {"__class__": "BankError", "__exception__": True, "args": error.args}
)
register_dict_to_class("BankError", lambda name, data: BankError(*data["args"]))


@expose
@behavior(instance_mode="session")
class Bank:
    """One per client; SQLite's connections must be used in the thread that opened them."""

    def __init__(self):
        self._database = sqlite3.connect(":memory:")
        self._database.execute("create table accounts (owner text primary key, balance int)")

    def create(self, owner):
        try:
            self._database.execute("insert into accounts values (?, 0)", (owner,))
        except sqlite3.IntegrityError:
            raise BankError(f"{owner} has an account") from None

    def deposit(self, owner, amount):
        if self.balance(owner) + amount < 0:
            raise BankError("not enough money")
        self._database.execute(
            "update accounts set balance = balance + ? where owner = ?", (amount, owner)
        )
        return self.balance(owner)

    def balance(self, owner):
        row = self._database.execute("select balance from accounts where owner = ?", (owner,))
        found = row.fetchone()
        if found is None:
            raise BankError(f"{owner} has no account")
        return found[0]

    @property
    def accounts(self):
        rows = self._database.execute("select owner, balance from accounts order by owner")
        return dict(rows.fetchall())


def main():
    with Daemon() as daemon:
        uri = daemon.register(Bank)
        thread = threading.Thread(target=daemon.requestLoop)
        thread.start()
        with Proxy(uri) as north, Proxy(uri) as south:
            for bank, owner in ((north, "Ada"), (south, "Bob")):
                bank.create(owner)
                print(owner, bank.deposit(owner, 100), bank.deposit(owner, -30))
            for action in (
                lambda: north.deposit("Ada", -1000),
                lambda: north.create("Ada"),
                lambda: north.balance("Bob"),
            ):
                try:
                    action()
                except BankError as error:
                    print("error:", error)
            print(north.accounts, south.accounts)
        daemon.shutdown()
        thread.join(10)
