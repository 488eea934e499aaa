"""The miniature family: data and pretraining that need no network, for the demonstration and the tests."""
