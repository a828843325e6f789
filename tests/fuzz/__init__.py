"""Readers of what comes from other hands, fed with what no edgeleaf wrote: each says one clear line, or reads it."""
