"""Run the command line from a checkout, once `pip install -e .` was done: `python cli.py`."""

from dupmae.cli import main

if __name__ == "__main__":
    main()
