"""Bundles inside other frameworks, one module per framework; edgeleaf itself imports none of them."""
