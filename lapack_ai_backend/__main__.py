"""``python -m lapack_ai_backend`` is the command ``lapack-ai``."""

from lapack_ai_backend.cli import app

app(prog_name="lapack-ai")
