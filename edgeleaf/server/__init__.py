"""``edgeleaf serve``: query vectors, and search, over HTTP. Needs the extra ``serve``."""
