"""The program of the process that starts workers. It is here because here `runner` is the one beside this package."""

from runner.execution.executors.server_process import main

if __name__ == "__main__":
    main()
