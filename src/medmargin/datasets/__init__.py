"""Data set layouts to cases; splits, integrity check, conversion, phantoms."""
