"""Teachers: texts to vectors of one space, cached."""
