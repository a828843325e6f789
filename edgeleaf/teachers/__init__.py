"""Teachers turn texts into vectors of one space; the vectors are cached."""
