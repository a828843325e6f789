"""Feed files that edgeleaf did not write to its readers: each reads the file or fails with one clear line."""
