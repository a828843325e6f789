"""Bundles inside other frameworks, one module each; nothing here is imported by edgeleaf itself."""
