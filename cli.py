"""Run the command line from a checkout, once `pip install .` or `pip install -e .` was done."""

import sys
from pathlib import Path

# Not the folder dupmae/ beside this file, which lacks what lies in engine/, indexes/ and eval/.
here = Path(__file__).resolve().parent
sys.path[:] = [place for place in sys.path if Path(place).resolve() != here]
try:
    from dupmae.cli import main
except ModuleNotFoundError as error:
    if error.name != "dupmae":
        raise
    sys.exit(f"Error: dupmae is not installed for {sys.executable}; run: pip install -e {here}")

if __name__ == "__main__":
    main()
