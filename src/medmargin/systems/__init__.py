"""One file per published system; each reads like the paper's method section."""
