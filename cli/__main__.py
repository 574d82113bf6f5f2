"""``python -P -m cli`` is the command ``tickring``."""

from cli.main import run

run()
