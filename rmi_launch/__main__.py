"""``python -m rmi_launch``: the ``rmi`` command, where its script is not on the path."""

from rmi_launch.cli import main

if __name__ == "__main__":
    main()
