"""Run the command line from a checkout: `python cli.py search "query"` (after `pip install -e .`)."""

from dupmae.cli import main

if __name__ == "__main__":
    main()
