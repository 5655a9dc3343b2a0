"""Parts of a retraining: its options, and the scores along the way."""
