"""Give a virtual environment the packages of another one, except the checkout that is installed there.

usage: without_checkout.py SITE_PACKAGES VENV
"""

import sys
from pathlib import Path

shared, venv = Path(sys.argv[1]), Path(sys.argv[2])
own = next((venv / "lib").glob("python*/site-packages"))
links = [path for path in shared.iterdir() if "distill_run" not in path.name and not (own / path.name).exists()]
for path in links:
    (own / path.name).symlink_to(path)
