"""The journeys a user makes: train, predict, evaluate, demo. Called by the command line and from Python."""
