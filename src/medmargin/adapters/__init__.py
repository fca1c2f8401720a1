"""Small trainable parts put into a frozen network."""
