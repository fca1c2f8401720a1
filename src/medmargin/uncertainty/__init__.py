"""From several answers to one answer with its uncertainty."""
