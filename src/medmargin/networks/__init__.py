"""Networks, with no knowledge of files, training or the command line."""
