"""The command: `bnbench`, or `python -m bnbench`."""

from runner.interfaces.cli.main import program as main

if __name__ == "__main__":
    main()
